"""What identifies a PEFT folder: every byte of its weights, and every setting that decides ΔW."""

import json
import logging
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lori_core.adapters import adapter_file, inspection
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import InputError
from lori_core.core.files.tensor_file import TensorFile
from lori_core.merging.merge import merge
from lori_core.models import peft_names
from support import peft_folder, random_adapter


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    adapter = random_adapter("gpt2", dtype=torch.bfloat16)
    adapter = replace(adapter, info=adapter.info | {"stage": "train@math"})
    adapter = adapter_file.save(adapter, folder / "ours")
    peft_file.export_peft(adapter, folder / "peft")
    return folder / "peft"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign") / "theirs"
    peft_folder(folder, r=2, target_modules=["q_proj"], use_rslora=True)
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Any]:
    """Return a function that gives a copy of a folder, under the folder's own name."""
    count = iter(range(10_000))

    def copied(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / str(next(count)) / folder.name))

    return copied


def key_of(folder: Path) -> str | None:
    """Return a folder's content key; None where it is refused."""
    try:
        return str(peft_file.open_adapter(folder).info["content_key"])
    except InputError:
        return None


def places(file: Path) -> Iterator[int]:
    """Yield places in every part of a file: its length, its header, each tensor's ends and inside.

    Of the header all that is metadata is long: it is sampled.
    """
    read = TensorFile(file)
    chosen = random.Random(0)
    yield from (0, 3, 7)
    yield from chosen.sample(range(8, read.data_start), 150)
    for entry in read.entries.values():
        yield from (entry.start, entry.stop - 1, chosen.randrange(entry.start, entry.stop))


@pytest.mark.parametrize("name", ["exported", "foreign"])
def test_any_flipped_bit_of_the_weights_changes_the_key_or_is_refused(
    name: str, copy: Any, request: pytest.FixtureRequest
) -> None:
    folder = copy(request.getfixturevalue(name))
    before = key_of(folder)
    file = folder / peft_names.WEIGHTS_FILE
    content = file.read_bytes()
    for place in places(file):
        bit = 1 << place % 8
        file.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        assert key_of(folder) != before, f"byte {place}"
    file.write_bytes(content)
    assert key_of(folder) == before


#: Settings that decide which modules get which ΔW.
DECISIVE: list[tuple[str, Any]] = [
    ("r", 3),
    ("r", "4"),
    ("lora_alpha", 9),
    ("lora_alpha", "8"),
    ("lora_alpha", float("nan")),
    ("use_rslora", None),
    ("use_rslora", "false"),
    ("fan_in_fan_out", None),
    ("rank_pattern", {"c_attn": 4, "q_proj": 4}),
    ("rank_pattern", ["q_proj"]),
    ("alpha_pattern", {"c_attn": 3}),
    ("alpha_pattern", {"c_attn": "3"}),
    ("target_modules", ["c_proj"]),
    ("target_modules", "c_attn"),
    ("target_modules", [3]),
    ("exclude_modules", ["c_attn"]),
    ("layers_to_transform", [0]),
    ("layers_pattern", "h"),
    ("peft_type", "IA3"),
    ("bias", "all"),
    ("use_dora", True),
]


@pytest.mark.parametrize("name", ["exported", "foreign"])
def test_any_setting_that_decides_the_update_changes_the_key_or_is_refused(
    name: str, copy: Any, request: pytest.FixtureRequest
) -> None:
    folder = copy(request.getfixturevalue(name))
    before = key_of(folder)
    path = folder / peft_names.CONFIG_FILE
    config = json.loads(path.read_text())
    for option, value in DECISIVE:
        changed = (not config[option]) if value is None else value
        path.write_text(json.dumps(config | {option: changed}))
        assert key_of(folder) != before, f"{option}: {changed!r}"
        path.write_text(json.dumps({k: v for k, v in config.items() if k != option}))
        if option in ("r", "lora_alpha", "peft_type", "target_modules"):
            assert key_of(folder) != before, f"without {option}"
    for damaged in ("", "[]", "{", path.read_text()[:40]):
        path.write_text(damaged)
        assert key_of(folder) is None


@pytest.mark.parametrize(
    ("option", "value"),
    [("base_model_name_or_path", "/models/base"), ("inference_mode", False), ("lora_dropout", 0.5)],
)
def test_what_does_not_decide_the_update_leaves_an_exports_key(
    exported: Path, copy: Any, option: str, value: Any
) -> None:
    folder = copy(exported)
    path = folder / peft_names.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {option: value}))
    assert key_of(folder) == key_of(exported)


def test_a_changed_export_says_that_its_key_was_dropped(
    exported: Path, copy: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy(exported)
    inspection.show(folder)
    assert "content_key  key-of-math" in capsys.readouterr().out
    assert caplog.records == []
    file = folder / peft_names.WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:-1] + b"\x3f")
    with caplog.at_level(logging.WARNING):
        changed = peft_file.open_adapter(folder)
    assert caplog.messages == [
        f"{folder}: its weights or settings were changed after it was exported as 'key-of-math': "
        "the digest of its files is used as its content key"
    ]
    assert "stage" not in changed.info
    assert changed.info["changed_from"] == "key-of-math"
    inspection.show(folder)
    printed = capsys.readouterr().out
    assert f"content_key  {changed.info['content_key']}" in printed
    assert f"adapter {folder}: a PEFT folder, changed since it was exported" in printed
    assert "changed_from key-of-math" in printed


def test_what_version_1_cannot_prove_is_not_called_verified(
    capsys: pytest.CaptureFixture[str],
) -> None:
    inspection.show(Path(__file__).parents[2] / "golden/adapter-v1-keyed")
    state = "tensors verified; adapter.json not verified: version 1 holds no checksum of it"
    assert capsys.readouterr().out.splitlines()[0].endswith(state)


def test_an_export_of_an_earlier_version_is_known_by_its_content(
    exported: Path, copy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy(exported)
    file = folder / peft_names.WEIGHTS_FILE
    metadata = TensorFile(file).metadata
    origin = json.loads(metadata["lori"])
    del origin["config"]
    save_file(load_file(file), file, {"format": "pt", "lori": json.dumps(origin)})
    adapter = peft_file.open_adapter(folder)
    assert adapter.blocks == peft_file.open_adapter(exported).blocks
    assert len(adapter.info["content_key"]) == 64
    assert "holds no digest of what was exported as 'key-of-math'" in caplog.text


def test_a_merge_names_what_it_was_given(exported: Path, copy: Any) -> None:
    folder = copy(exported)
    file = folder / peft_names.WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:-1] + b"\x3f")
    parents = [peft_file.open_adapter(path) for path in (exported, folder)]
    recipe = merge("linear", parents, [1, 1]).info["recipe"]
    keys = [parent["content_key"] for parent in recipe["parents"]]
    assert keys == ["key-of-math", key_of(folder)]
    assert keys[1] != "key-of-math"


@pytest.mark.parametrize(
    "said", ["[]", "{", '{"base": 1}', '{"base": {}, "info": {}, "blocks": [], "dtype": "float32"}']
)
def test_metadata_that_is_not_ours_is_refused_by_name(exported: Path, copy: Any, said: str) -> None:
    folder = copy(exported)
    file = folder / peft_names.WEIGHTS_FILE
    save_file(load_file(file), file, {"format": "pt", "lori": said})
    with pytest.raises(
        InputError,
        match=r"adapter_model\.safetensors: damaged: (its metadata|it does not say)",
    ):
        peft_file.open_adapter(folder)
