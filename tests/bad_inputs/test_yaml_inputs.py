"""YAML that is none, or more than it seems: in params.yaml, profiles and --set."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_inputs.cases import Case, each
from bad_inputs.commands import Commands
from bad_inputs.yaml_texts import GOOD, PLACES, TEXTS, checked

IN_PARAMS = [
    Case(f"params-{name}", ["plan"], {"params.yaml": content}, ["params.yaml"])
    for name, content in checked(TEXTS | PLACES)
]
#: Some of them, by the other ways in which the same text comes in.
SOME = ("bomb-of-maps", "nul", "utf-16", "tag-python-object", "a-key-twice", "digits-5000")
IN_PROFILES = [
    Case(
        f"profile-{name}",
        ["plan", "--profile", "smoke"],
        {"profiles/smoke.yaml": content},
        ["profiles/smoke.yaml"],
    )
    for name, content in checked(TEXTS | PLACES)
    if name in SOME or name in PLACES
]
#: Each command that reads params.yaml.
COMMANDS = {
    "run": ["run"],
    "pull": ["pull"],
    "stage": ["stage", "train", "math"],
    "methods": ["methods"],
    "experiment": ["experiment", "single-task"],
    "experiment-plan": ["experiment", "single-task", "--plan"],
    "plan-with-set": ["plan", "--set", "lori.rank=4"],
    "run-with-set": ["run", "--set", "lori.rank=4"],
    "evaluate": ["evaluate", "--tasks", "math"],
    "gate": ["gate"],
}
BY_COMMANDS = [
    Case(f"{command}-{name}", argv, {"params.yaml": (TEXTS | PLACES)[name]}, ["params.yaml"])
    for command, argv in COMMANDS.items()
    for name in ("bomb-of-lists", "digits-5000", "a-pipe", "a-folder", "sexagesimal")
    if "set" not in command or name != "sexagesimal"  # what is set takes its place
]

VALUES = {
    "holds-itself": "&a [*a]",
    "unknown-alias": "*a",
    "open-list": "[",
    "open-map": "{",
    "open-quote": "'",
    "bell": "\x07",
    "escape": "\x1b[2J",
    "bad-utf-8": "\udcff",
    "digits-5000": "9" * 5000,
    "digits-30": "9" * 30,
    "deep": "[" * 5000,
    "deep-maps": "{a: " * 50 + "1" + "}" * 50,
    "tag": "!!python/object/apply:os.getcwd []",
    "tag-int": "!!int x",
    "documents": "1\n---\n2",
    "directive": "%YAML 1.1\n---\n8",
    "date": "2020-01-01",
    "date-that-is-none": "2020-99-99",
    "nan": ".nan",
    "nan-text": "nan",
    "inf": ".inf",
    "inf-text": "Infinity",
    "overflow": "1e999",
    "true": "true",
    "yes": "yes",
    "quoted": "'8'",
    "float": "8.0",
    "half": "0.5",
    "underscores": "1__6_x",
    "empty": "",
    "null": "null",
    "list": "[8]",
    "map": "{a: 8}",
    "text": "eight",
    "negative": "-8",
    "zero": "0",
    "huge": "1000000000",
    "comment": "# 8",
    "colon": "a: b: c",
    "two-lines": "8\n9",
    "dash": "- ",
    "bomb": "{a: &a [1,1,1,1,1,1,1,1,1], b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,"
    "*b,*b,*b,*b], d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c], e: [*d,*d,*d,*d,*d,*d,*d,*d,*d]}",
}
SET_VALUES = [
    Case(f"set-rank-{name}", ["plan", "--set", f"lori.rank={value}"], says=["lori.rank"])
    for name, value in VALUES.items()
]
KEYS = {
    "empty": "",
    "no-value": "lori.rank",
    "equals-only": "=",
    "no-key": "=4",
    "dot": ".=4",
    "dots": "...=4",
    "two-dots": "lori..rank=4",
    "dot-first": ".lori.rank=4",
    "dot-last": "lori.rank.=4",
    "space-before": " lori.rank=4",
    "space-after": "lori.rank =4",
    "unknown-section": "lorry.rank=4",
    "unknown-key": "lori.rnk=4",
    "index": "lori.target_modules[0]=x",
    "index-by-dot": "lori.target_modules.0=x",
    "below-a-value": "lori.rank.x=4",
    "below-text": "model.name_or_path.x=4",
    "below-null": "model.revision.x=4",
    "a-section": "lori=4",
    "a-section-null": "lori=",
    "all-tasks": "tasks=",
    "no-tasks": "tasks={}",
    "a-task": "tasks.math=4",
    "unknown-task": "tasks.mth.training.epochs=2",
    "unknown-merge": "merge.conct.weights=1",
    "control": "lori.ra\x07nk=4",
    "line": "lori.ra\nnk=4",
    "long": "lori." + "x" * 10_000 + "=4",
    "long-path": ".".join(["lori"] * 5000) + "=4",
    "slash": "lori/rank=4",
    "bad-utf-8": "lori.\udcff=4",
    "quotes": "'lori.rank'=4",
    "other-letters": "lori.ränk=4",
    "python": "lori.__class__=4",
    "python-section": "__class__.rank=4",
    "model-config": "model_config.extra=allow",
}
SET_KEYS = [Case(f"set-key-{name}", ["plan", "--set", text]) for name, text in KEYS.items()]
PROFILES = {
    "empty": "",
    "unknown": "smok",
    "path": "../profiles/smoke",
    "absolute": "/etc/passwd",
    "dots": "..",
    "suffix": "smoke.yaml",
    "control": "a\x07",
    "long": "x" * 5000,
    "bad-utf-8": "\udcff",
}
NAMED_PROFILES = [
    Case(f"profile-name-{name}", ["plan", "--profile", text], says=["--profile"])
    for name, text in PROFILES.items()
]


@each(IN_PARAMS)
def test_params(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)


@each(IN_PROFILES + NAMED_PROFILES)
def test_profiles(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)


@each(BY_COMMANDS)
def test_commands(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)


@each(SET_VALUES + SET_KEYS)
def test_set(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)


@pytest.mark.parametrize(
    "text",
    [GOOD, "\ufeff" + GOOD, GOOD.replace("\n", "\r\n"), GOOD + "...\n", "---\n" + GOOD],
    ids=["plain", "byte-order-mark", "windows-lines", "end-of-document", "begin-of-document"],
)
def test_what_is_no_fault_is_taken(text: str, lori: Commands, project: Path) -> None:
    (project / "params.yaml").write_bytes(text.encode())
    outcome = lori.run(["plan", "--set", "lori.rank=4"], project)
    assert outcome.code == 0, outcome.err
    assert [name for name in outcome.written() if not name.startswith(".dvc/tmp/")] == []
