"""DVC's small files, where they are no files, too much, or lead elsewhere."""

from __future__ import annotations

from pathlib import Path

from bad_inputs.cases import Case, Content, each
from bad_inputs.commands import Commands
from bad_inputs.yaml_texts import PLACES, TEXTS

#: What is wrong in any YAML, whatever it is about.
ANY = (
    "bomb-of-lists", "bomb-of-maps", "holds-itself-list", "nul", "utf-16", "utf-32", "bytes",
    "latin-1", "deep-lists-open", "digits-5000", "tag-python-object", "two-documents",
    "8-GB-of-zeros",
)  # fmt: skip
FILES = {
    "dvc.yaml": ["plan"],
    "dvc.lock": ["plan"],
    "data.dvc": ["plan"],
    ".dvc/config": ["plan"],
}
ANYWHERE = [
    Case(f"{name}-{fault}", argv, {name: (TEXTS | PLACES)[fault]}, [name])
    for name, argv in FILES.items()
    for fault in (*ANY, *PLACES)
    # DVC's settings are no YAML.
    if name != ".dvc/config" or fault in (*PLACES, "utf-16", "latin-1", "8-GB-of-zeros")
]

MD5 = "0123456789abcdef0123456789abcdef"
LOCK = f"""\
schema: '2.0'
stages:
  mask@math:
    cmd: lori stage mask math
    deps:
    - path: data/math
      hash: md5
      md5: {MD5}.dir
      size: 10
      nfiles: 3
    outs:
    - path: artifacts/math/mask.safetensors
      hash: md5
      md5: {MD5}
      size: 10
"""
PIN = f"outs:\n- md5: {MD5}.dir\n  size: 10\n  nfiles: 3\n  hash: md5\n  path: data\n"
OTHER_PATHS = {
    "absolute": "/etc",
    "up": "../data",
    "up-inside": "data/../../other",
    "other": "other",
    "nul": '"da\\0ta"',
    "empty": '""',
    "number": "7",
    "null": "null",
}
PINS: dict[str, Content] = {
    **{f"path-{name}": PIN.replace("data", path) for name, path in OTHER_PATHS.items()},
    "empty": "",
    "cut": PIN[:-4],
    "no-outs": "outs: []\n",
    "two-outs": PIN + PIN.removeprefix("outs:\n"),
    "md5-short": PIN.replace(MD5, "abc"),
    "size-negative": PIN.replace("size: 10", "size: -10"),
    "size-text": PIN.replace("size: 10", "size: ten"),
    "size-nan": PIN.replace("size: 10", "size: .nan"),
}
PINNED = [
    Case(f"why-pin-{name}", ["why"], {"dvc.lock": LOCK, "data.dvc": content}, ["data.dvc"])
    for name, content in PINS.items()
]
LOCKS: dict[str, Content] = {
    "path-absolute": LOCK.replace("artifacts/math", "/etc"),
    "path-up": LOCK.replace("artifacts/math", "../../x"),
    "path-nul": LOCK.replace("artifacts/math/mask.safetensors", '"a\\0b"'),
    "dep-absolute": LOCK.replace("data/math", "/etc"),
    "md5-short": LOCK.replace(f"md5: {MD5}\n", "md5: abc\n"),
    "size-nan": LOCK.replace("size: 10\n", "size: .nan\n"),
    "size-true": LOCK.replace("size: 10\n", "size: true\n"),
    "schema": LOCK.replace("'2.0'", "'9.0'"),
    "cut": LOCK[:-30],
    "list": "- a\n",
    "word": "word\n",
}
LOCKED = [
    Case(f"why-lock-{name}", ["why", "--no-remote"], {"dvc.lock": content}, ["dvc.lock"])
    for name, content in LOCKS.items()
]


@each(ANYWHERE)
def test_no_files_of_dvc(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)


@each(PINNED + LOCKED)
def test_what_a_lineage_reads(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)


HARNESS = [
    Case(
        f"harness-{name}",
        [
            *("evaluate", "--base", "random:llama", "--harness", "lm-eval", "--tasks", "mine"),
            *("--include-path", "tasks"),
        ],
        {"tasks/mine.yaml": content},
        ["tasks"],
    )
    for name, content in (TEXTS | PLACES).items()
    if name in ("bomb-of-maps", "nul", "utf-16", "tag-python-object", "a-pipe", "8-GB-of-zeros")
]


@each(HARNESS)
def test_tasks_of_the_harness(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)
