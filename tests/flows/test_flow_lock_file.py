"""`dvc.lock` and `data.dvc`: what DVC writes is read, whatever was done to it is refused."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import pytest

from flows.versioning.dvc.lock_file import Entry, read_document, read_lock, read_pin
from flows.versioning.dvc.yaml_document import parsed
from lori_core.core.errors import InputError

#: Two stages as DVC 3 writes them.
LOCK = dedent(
    """\
    schema: '2.0'
    stages:
      mask@math:
        cmd: lori stage mask math
        deps:
        - path: artifacts/math/calibrated
          hash: md5
          md5: 897820c8524a2cb587d5bb31516e67a5.dir
          size: 38714
          nfiles: 2
        params:
          params.yaml:
            lori.sparsity: 0.9
            training:
              learning_rate: 1e-05
        outs:
        - path: artifacts/math/mask.safetensors
          hash: md5
          md5: 4fc6be45839d40ae2d9f57046b5fce2c
          size: 519
        - path: metrics/mask/math.json
          hash: md5
          md5: 96a16528b283df13dce5976f7d3f9ef0
          size: 20
      report:
        cmd: lori stage report
        deps:
        - path: https://example.org/logo.png
          hash: md5
          checksum: abc
        outs:
        - path: report
          hash: md5
          md5: 5ab12408ab6bd630f562668ad8ff9fa1.dir
          size: 93
          nfiles: 13
    """
)
PIN = dedent(
    """\
    outs:
    - md5: 87eb49111223431c1012023f42745d16.dir
      size: 719387
      nfiles: 13
      hash: md5
      path: data
    """
)


@pytest.mark.parametrize(
    "value",
    [
        *("no", "on", "Yes", "y", "true", "null", "~", "", "1:30", "012", "0o17", "1e-05", "0x1f"),
        *("1_000", "2024-01-01", "=", "<<", "1e5", ".5", "-.inf", "+1", "0b1", "*a", "&a", "!a"),
        *(True, False, None, 12, 0o17, 1e-05, 1e22, -0.5, 1e300, 31, [], {}, ["no", 1e-7]),
    ],
)
def test_any_value_is_read_as_dvc_wrote_it(value: Any) -> None:
    from dvc.utils.serialize import dumps_yaml, parse_yaml

    document = parse_yaml(LOCK, "dvc.lock")
    document["stages"]["mask@math"]["params"]["params.yaml"] = {"value": value}
    content = dumps_yaml(document)
    stage = read_lock(content.encode(), "here: dvc.lock")["mask@math"]
    assert repr(stage.params) == repr({"value": value})
    assert parsed(content.encode(), "dvc.lock", "") == parse_yaml(content, "dvc.lock") == document


def test_what_dvc_writes_is_read() -> None:
    stages = read_lock(LOCK.encode(), "here: dvc.lock")
    mask = stages["mask@math"]
    assert mask.command == "lori stage mask math"
    assert mask.deps == {
        "artifacts/math/calibrated": Entry(
            "artifacts/math/calibrated", "897820c8524a2cb587d5bb31516e67a5.dir", 38714, 2
        )
    }
    assert mask.params == {"lori.sparsity": 0.9, "training": {"learning_rate": 1e-05}}
    assert list(mask.outs) == ["artifacts/math/mask.safetensors", "metrics/mask/math.json"]
    assert stages["report"].deps["https://example.org/logo.png"].md5 == "abc"
    pinned = Entry("data", "87eb49111223431c1012023f42745d16.dir", 719387, 13)
    assert read_pin(PIN.encode(), "here: data.dvc") == pinned


@pytest.mark.parametrize("tail", ["", "datasets: []\n"])
def test_the_values_of_all_stages_are_those_of_the_whole_file(tail: str) -> None:
    content = (LOCK + tail).encode()
    expected = parsed(content, "dvc.lock", "")
    assert read_document(content, "here: dvc.lock") == expected
    assert list(expected["stages"]) == list(read_document(content, "x")["stages"])
    with pytest.raises(InputError, match=r"^here: dvc\.lock"):
        read_document(content.removesuffix(b"\n"), "here: dvc.lock")


def test_a_lock_that_was_cut_anywhere_is_refused() -> None:
    content = LOCK.encode()
    whole = LOCK.index("  report:\n")
    for length in range(len(content)):
        if length == whole:  # the next stage begins here: only the workspace can tell
            assert list(read_lock(content[:length], "x")) == ["mask@math"]
        elif length == LOCK.index("    - path: metrics/mask"):
            assert list(read_lock(content[:length], "x")["mask@math"].outs) == [
                "artifacts/math/mask.safetensors"
            ]
        else:
            with pytest.raises(InputError, match=r"^here: dvc\.lock(:\d+)?: damaged: .*restore it"):
                read_lock(content[:length], "here: dvc.lock")


def test_a_pin_that_was_cut_anywhere_is_refused() -> None:
    content = PIN.encode()
    for length in range(len(content)):
        with pytest.raises(InputError, match=r"^here: data\.dvc(:\d+)?: damaged: .*lori pull"):
            read_pin(content[:length], "here: data.dvc")


EDITS = [
    ("  size: 38714", "  size: many"),
    ("  size: 38714", "  size: true"),
    ("  size: 38714", "  size: -1"),
    ("      size: 38714\n", ""),
    ("      nfiles: 2\n", ""),
    ("  size: 519", "  size: 519\n      nfiles: 1"),
    ("nfiles: 2", "nfiles: 2.0"),
    ("md5: 897820c8524a2cb587d5bb31516e67a5.dir", "md5: 897820c8"),
    ("md5: 897820c8524a2cb587d5bb31516e67a5.dir", "md5: 897820C8524A2CB587D5BB31516E67A5.dir"),
    ("md5: 4fc6be45839d40ae2d9f57046b5fce2c", "md5: 12345678901234567890123456789012"),
    ("md5: 4fc6be45839d40ae2d9f57046b5fce2c", "md5:"),
    ("      md5: 4fc6be45839d40ae2d9f57046b5fce2c\n", ""),
    ("- path: artifacts/math/mask.safetensors\n      hash: md5", "- hash: md5"),
    ("- path: artifacts/math/mask.safetensors", "- path: ''"),
    ("      hash: md5\n      md5: 4fc", "      md5: 4fc"),
    ("hash: md5\n      md5: 4fc", "hash: sha1\n      md5: 4fc"),
    ("- path: artifacts/math/mask.safetensors", "- path: metrics/mask/math.json"),
    ("- path: report", "- path: metrics/mask/math.json"),
    ("  report:\n", "  mask@math:\n"),
    ("    cmd: lori stage report\n", ""),
    ("cmd: lori stage report", "cmd: ''"),
    ("cmd: lori stage report", "cmd: 3"),
    ("    outs:\n    - path: report", "    out:\n    - path: report"),
    ("    params:\n", "    parameters:\n"),
    ("      params.yaml:\n", "      params.yaml: 3\n      other.yaml:\n"),
    ("    deps:\n", "    deps: none\n    deps:\n"),
    ("schema: '2.0'\n", ""),
    ("schema: '2.0'", "schema: '1.0'"),
    ("schema: '2.0'", "schema: '2.0'\nstage: {}"),
    ("stages:\n", "stages: {}\nrest:\n"),
    ("lori.sparsity: 0.9", "lori.sparsity: 2024-13-45"),
    ("lori.sparsity: 0.9", "lori.sparsity: [0.9"),
    ("lori.sparsity: 0.9", "lori.sparsity: \x00"),
    ("lori.sparsity: 0.9", "lori.sparsity: !!python/object:os.system {}"),
]


@pytest.mark.parametrize(("before", "after"), EDITS, ids=[repr(after) for _, after in EDITS])
def test_an_edited_lock_is_refused_in_one_line(before: str, after: str) -> None:
    assert before in LOCK
    with pytest.raises(InputError, match=r"^here: dvc\.lock(:\d+)?: damaged: ") as raised:
        read_lock(LOCK.replace(before, after, 1).encode(), "here: dvc.lock")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content", ["[]\n", "3\n", "\n", "outs: []\n", "outs:\n", PIN + PIN[6:], PIN + PIN]
)
def test_what_is_no_pin_is_refused(content: str) -> None:
    with pytest.raises(InputError, match=r"^here: data\.dvc(:\d+)?: damaged: "):
        read_pin(content.encode(), "here: data.dvc")


@pytest.mark.parametrize("key", ["md5", "size", "nfiles", "hash", "path"])
def test_a_pin_without_a_key_is_refused(key: str) -> None:
    lines = [line for line in PIN.splitlines(keepends=True) if not re.match(rf".*\b{key}: ", line)]
    content = "".join(lines).replace("outs:\n  ", "outs:\n- ")
    assert content != PIN
    with pytest.raises(InputError, match=r"^here: data\.dvc: damaged: "):
        read_pin(content.encode(), "here: data.dvc")
