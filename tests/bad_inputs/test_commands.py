"""What runs the cases sees what a command does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bad_inputs import commands
from bad_inputs.commands import Commands, Outcome


def test_a_command_runs_in_its_folder(lori: Commands, project: Path) -> None:
    outcome = lori.run(["profiles"], project)
    assert (outcome.code, outcome.out, outcome.err) == (0, "smoke\n", "")
    assert outcome.written() == []
    assert outcome.seconds < commands.SECONDS


def test_what_is_written_is_seen(lori: Commands, project: Path) -> None:
    (project / "profiles" / "smoke.yaml").write_text("")
    first = lori.run(["profiles"], project)
    (project / "new").mkdir()
    (project / "params.yaml").unlink()
    after = commands.listing(project)
    seen = Outcome(("x",), 2, "", "error: x\n", 0.1, 0, first.after, after)
    assert seen.written() == ["new", "params.yaml"]
    with pytest.raises(AssertionError):
        seen.refusal()


GOOD = {
    "argv": ("x",), "code": 2, "out": "", "err": "error: a: b\n", "seconds": 0.1, "growth": 0,
    "before": {}, "after": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": None}, "killed after 60 s"),
        ({"seconds": 11.0}, "11.0 s"),
        ({"code": 1}, "exit code 1"),
        ({"err": "error: a\nb\n"}, "2 lines"),
        ({"err": ""}, "0 lines"),
        ({"err": "a: b\n"}, "a: b"),
        ({"err": "error: Traceback\n"}, "Traceback"),
        ({"growth": 1 << 30}, "1024 MB"),
        ({"after": {"x": "-rw-r--r--"}}, "exit code 2"),
    ],
)
def test_what_is_no_refusal_fails(change: dict[str, object], message: str) -> None:
    assert Outcome(**GOOD).refusal() == "a: b"  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=re.escape(message)):
        Outcome(**{**GOOD, **change}).refusal()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("nothing",),
        ("merge",),
        ("plan", "--gpus", "many"),
        ("plan", "--gpus"),
        ("plan", "--why", "train@math", "--json"),
        ("export", "a", "b", "--to", "x"),
        ("plan", "--nothing"),
    ],
    ids=lambda argv: "-".join(argv) or "none",
)
def test_a_wrong_command_line_is_one_line(
    lori: Commands, project: Path, argv: tuple[str, ...]
) -> None:
    assert "lori" in lori.run(argv, project).refusal()


def test_a_plan_that_is_refused_says_nothing_else(lori: Commands, project: Path) -> None:
    assert "--gpu: device 'h℀'" in lori.run(("plan", "--gpu", "h℀"), project).refusal()
