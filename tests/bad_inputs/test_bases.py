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
REVISIONS = {"branch": "main", "short": "abc123", "path": "../x", "digits": "'1'"}
BASES = [
    Case(f"run-base-{name}", ["run", "--set", f"model.name_or_path={text}"])
    for name, text in NAMES.items()
]
OF_A_HUB = ("run", "--set", "model.name_or_path=owner/name", "--set")
BASES += [
    Case(f"run-revision-{name}", [*OF_A_HUB, f"model.revision={text}"])
    for name, text in REVISIONS.items()
]
BASES += [
    Case(f"experiment-base-{name}", ["experiment", "granularity", "--base", text.strip("'")])
    for name, text in NAMES.items()
]


@each(BASES)
def test_a_base_that_is_not_there(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)
