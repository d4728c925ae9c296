"""The commands and settings that the documents show are accepted as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import lori_cli
from lori_core.pipeline import params_file

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Lines of shell blocks that change or plan the run.
COMMANDS = [
    line
    for path in DOCUMENTS
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    for line in block.splitlines()
    if re.match(r"lori (run|plan|experiment)\b", line)
]


def test_there_are_such_commands() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_fits_the_shipped_settings(command: str) -> None:
    arguments = lori_cli._parser().parse_args(shlex.split(command, comments=True)[1:])
    params_file.changed(ROOT / "params.yaml", arguments.profile, arguments.set)


def test_the_example_of_own_data_is_a_valid_run(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(model:.*?)```", page, re.S)
    path = tmp_path / "params.yaml"
    path.write_text(f"{example}\nlori: {{rank: 32}}\ntraining: {{batch_size: 32}}\n")
    assert list(params_file.load(path).tasks) == ["support"]
    params_file.apply(path, None, [])
    assert "method: lori-s" in path.read_text()
