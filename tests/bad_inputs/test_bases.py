"""Base models that are not there, before a run writes anything."""

from __future__ import annotations

from pathlib import Path

from bad_inputs.cases import Case, each
from bad_inputs.commands import Commands

NAMES = {
    "random-unknown": "random:nothing",
    "random-empty": "'random:'",
    "pypi-unknown": "pypi:nothing",
    "pypi-empty": "'pypi:'",
    "pypi-path": "pypi:../x",
    "folder-missing": "./nothing",
    "folder-absolute": "/nothing/at/all",
    "folder-empty": "./profiles",
    "a-file": "./params.yaml",
    "hub-without-commit": "owner/name",
    "hub-three-parts": "a/b/c",
    "scheme": "http://host/model",
    "long": "x" * 300,
    "space": "' '",
    "dots": "..",
}
BASES = [
    Case(f"{command}-base-{name}", [command, "--set", f"model.name_or_path={text}"])
    for command in ("run", "experiment single-task --here".split()[0])
    for name, text in NAMES.items()
    if command == "run"
] + [
    Case(f"revision-{name}", ["run", "--set", "model.name_or_path=owner/name"]
         + ["--set", f"model.revision={text}"])
    for name, text in {"branch": "main", "short": "abc123", "path": "../x", "digits": "'1'"}.items()
]  # fmt: skip


@each(BASES)
def test_a_base_that_is_not_there(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)
