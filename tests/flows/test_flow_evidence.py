"""What `why` and the gate believe was compared with its hash first: every file, damaged in turn."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from made import Made, _verdict

from flows.lineage import why
from flows.lineage.verification import verify
from flows.serving import gate
from flows.tracking.registry import CHAMPION, Registry
from flows.versioning.objects import folder_md5, md5_of
from lori_core import params_file
from lori_core.cli import main
from lori_core.errors import DataError, InputError, LoriError
from lori_core.files import write_json, write_jsonl
from support import refused

MERGED = "artifacts/merged/concat"
EXCESS = "metrics/excess/concat.json"
ROWS = "artifacts/evaluations/merged/concat/concat/math.jsonl"
ALONE = "artifacts/evaluations/adapters/safety/lori-s/safety.jsonl"
RULES = {"excess.math": {"at_most": 0.1}, "forgetting": {"at_most": 0.3}}


class Measured(Made):
    """A finished run whose gate has rules about all that can be measured, and its `dvc.yaml`.

    The candidate is refused: it costs math too much, and it has forgotten refusals.
    """

    def __init__(self, folder: Path, excess: float = 0.5, alone: int = 40, **made: Any) -> None:
        self.excess = excess
        self.alone = alone
        super().__init__(folder, **made)
        self._write("dvc.yaml", {"vars": ["params.yaml"], "stages": pipeline()})

    def _params(self) -> None:
        super()._params()
        values = yaml.safe_load((self.folder / "params.yaml").read_text())
        values["gate"] |= {"rules": RULES, "candidate": MERGED}
        values["continual"] = {"safety_task": "safety", "tasks": []}
        values["evaluation"] = {"batch_size": 8}
        self._write("params.yaml", values)

    def _evaluate(self) -> None:
        super()._evaluate()
        params = {"evaluation": {"batch_size": 8}}
        folder, metrics = (
            "artifacts/evaluations/adapters/safety",
            "metrics/evaluate/adapters/safety.json",
        )
        rows = [_verdict("safety", n, n < self.alone, safety=True) for n in range(40)]
        write_jsonl(self.folder / ALONE, rows)
        score = {
            "metric": "refusal_rate",
            "score": self.alone / 40,
            "low": 0.0,
            "high": 1.0,
            "n": 40,
        }
        write_json(self.folder / metrics, {"lori-s": {"safety": score}})
        deps = ["data/safety/test.jsonl", "artifacts/safety/adapter"]
        self._stage("evaluate_adapters@safety", deps, [folder, metrics], params, ["gate.py"])
        row = {"excess": self.excess, "low": 0.0, "high": 1.0}
        write_json(self.folder / EXCESS, {"excess": {"math": row, "safety": row}})
        self._stage("excess@concat", ["data", MERGED], [EXCESS], {}, ["loss.py"])
        deps = ["artifacts/evaluations", "data/manifest.json", "metrics"]
        (self.folder / "report").mkdir(exist_ok=True)
        (self.folder / "report/index.html").write_text("<p>page</p>")
        self._stage("report", deps, ["report"], {}, ["gate.py"])


def each(things: Any, step: str, key: str, **parts: list[str]) -> dict[str, Any]:
    """Return a stage of `dvc.yaml` for each of some things."""
    return {"foreach": things, "do": {"cmd": f"lori stage {step} {key}", **parts}}


def pipeline() -> dict[str, Any]:
    """Return that run's `dvc.yaml`, written as the project's own."""
    key, item = "${key}", "${item}"
    train, adapter = f"data/{key}/train.jsonl", f"artifacts/{key}/adapter"
    calibrated, mask = f"artifacts/{key}/calibrated", f"artifacts/{key}/mask.safetensors"
    merged = f"artifacts/merged/{key}"
    return {
        "calibrate": each(
            "${tasks}",
            "calibrate",
            key,
            deps=[train, "lori_core/training.py"],
            params=["training", "model", f"tasks.{key}.calibration"],
            outs=[calibrated],
        ),
        "mask": each(
            "${tasks}",
            "mask",
            key,
            deps=[calibrated, "lori_core/mask.py"],
            params=["lori.sparsity", "lori.mask_scope"],
            outs=[mask],
        ),
        "train": each(
            "${tasks}",
            "train",
            key,
            deps=[train, calibrated, mask, "lori_core/training.py"],
            params=["training", f"tasks.{key}.training"],
            outs=[adapter],
            metrics=[f"metrics/train/{key}.json"],
        ),
        "merge": each(
            "${merge}",
            "merge",
            key,
            deps=["metrics/train/", "lori_core/merging.py"],
            params=[f"merge.{key}"],
            outs=[merged],
        ),
        "evaluate_merged": each(
            "${merge}",
            "evaluate_merged",
            key,
            deps=["data", merged, "lori_core/gate.py"],
            params=["evaluation"],
            outs=[f"artifacts/evaluations/merged/{key}"],
            metrics=[f"metrics/evaluate/merged/{key}.json"],
        ),
        "evaluate_adapters": each(
            ["safety"],
            "evaluate_adapters",
            item,
            deps=[f"data/{item}/test.jsonl", f"artifacts/{item}/adapter", "lori_core/gate.py"],
            params=["evaluation"],
            outs=[f"artifacts/evaluations/adapters/{item}"],
            metrics=[f"metrics/evaluate/adapters/{item}.json"],
        ),
        "excess": each(
            "${merge}",
            "excess",
            key,
            deps=["data", merged, "lori_core/loss.py"],
            metrics=[f"metrics/excess/{key}.json"],
        ),
        "report": {
            "cmd": "lori stage report",
            "deps": ["metrics", "artifacts/evaluations", "data/manifest.json", "lori_core/gate.py"],
            "outs": ["report"],
        },
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    folder = tmp_path_factory.mktemp("measured") / "workspace"
    Measured(folder)
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def workspace(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished workspace of the test's own; the current folder."""
    folder = tmp_path / "workspace"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def judge() -> gate.Outcome:
    return gate.run_gate(Path(), params_file.load(), send=False)


def untouched() -> bool:
    """Whether nothing was promoted, and no verdict written."""
    return not Path("gate").exists() and Registry(Path()).at("lori", CHAMPION) is None


def told(word: str = MERGED) -> str:
    """Return what `lori why` finds, or how it refuses."""
    try:
        found = verify(why.lineage_of(why.resolve(word, Path()), remote=False))
    except LoriError as error:
        return str(error)
    return "\n".join(map(str, found))


def refusal() -> str:
    """Return how the gate refuses to judge: in one line, and without a verdict."""
    with pytest.raises(InputError) as raised:
        judge()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_whole_evidence_is_judged_and_this_candidate_refused(workspace: Path) -> None:
    assert told() == told(".") == ""
    outcome = judge()
    assert [f.rule for f in outcome.verdict.refusals] == ["excess.math"]
    assert outcome.verdict.findings[1].rule == "forgetting"


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first byte": lambda content: flipped(content, 0),
    "a byte": lambda content: flipped(content, random.Random(0).randrange(len(content))),
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
    "longer": lambda content: content + b"\n",
}
#: What the verdict stands on, or its lineage does.
FILES = [
    f"{MERGED}/adapter.json",
    f"{MERGED}/adapter.safetensors",
    "artifacts/math/adapter/adapter.json",
    "artifacts/safety/adapter/adapter.safetensors",
    "artifacts/math/calibrated/adapter.safetensors",
    "artifacts/safety/mask.safetensors",
    "metrics/train/math.json",
    "metrics/evaluate/merged/concat.json",
    "metrics/evaluate/adapters/safety.json",
    EXCESS,
    ROWS,
    "artifacts/evaluations/merged/concat/concat/safety.jsonl",
    ALONE,
    "data/manifest.json",
    "data/math/train.jsonl",
    "data/safety/test.jsonl",
    "data/math/validation.jsonl",
    "dvc.lock",
    "data.dvc",
]
#: Of these nothing is read to judge: they may be gone, as on a machine that never had them.
UNUSED = (
    "artifacts/safety/mask.safetensors",
    "metrics/train/math.json",
    "metrics/evaluate/adapters/safety.json",
)


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_damaged_is_named_by_why_and_by_the_gate(
    workspace: Path, name: str
) -> None:
    path = workspace / name
    content = path.read_bytes()
    for damage, change in DAMAGES.items():
        path.write_bytes(change(content))
        if damage == "longer" and name in ("dvc.lock", "data.dvc"):
            continue  # an empty line more says nothing else
        assert name in told(), damage
        assert name in refusal(), damage
    path.unlink()
    if name not in UNUSED:
        assert name in refusal()
    path.write_bytes(content)
    assert told() == ""
    assert untouched()


@pytest.mark.parametrize("path", [EXCESS, ROWS, ALONE])
def test_numbers_that_would_let_a_refused_model_pass_are_not_believed(
    workspace: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (workspace / path).read_text()
    edits = {EXCESS: ("0.5", "0.0"), ROWS: ("false", "true"), ALONE: ("true", "false")}
    (workspace / path).write_text(text.replace(*edits[path], 1))
    assert path in refused(capsys, "gate")
    assert untouched()


def test_edited_scores_are_neither_told_nor_put_on_a_card(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "metrics/evaluate/merged/concat.json"
    path.write_text(path.read_text().replace("0.75", "0.99"))
    for extra in ([], ["--no-verify"], ["--json"]):
        assert main(["why", MERGED, *extra]) == 1
        shown = capsys.readouterr()
        assert "99" not in "\n".join(line for line in shown.out.splitlines() if "score" in line)
        assert "not what was made: metrics/evaluate/merged/concat.json" in shown.err
    for command in (["card"], ["register"], ["push", "--dry-run", "out", "me/it"]):
        line = refused(capsys, command[0], MERGED, *command[1:])
        assert "metrics/evaluate/merged/concat.json" in line
    assert not (workspace / "out").exists()


def lock_of(workspace: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((workspace / "dvc.lock").read_text()))


def write_lock(workspace: Path, lock: dict[str, Any]) -> None:
    (workspace / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


def test_a_lock_cut_at_any_line_is_noticed(workspace: Path) -> None:
    path = workspace / "dvc.lock"
    lines = path.read_text().splitlines(keepends=True)
    for count in range(len(lines)):
        path.write_text("".join(lines[:count]))
        assert "dvc.lock" in told(), count


@pytest.mark.parametrize("defined", [True, False])
def test_a_lock_without_a_stage_is_noticed(workspace: Path, defined: bool) -> None:
    if not defined:
        (workspace / "dvc.yaml").unlink()
    whole = lock_of(workspace)
    for name in whole["stages"]:
        if not defined and not any("metrics/" in o["path"] for o in whole["stages"][name]["outs"]):
            continue
        write_lock(
            workspace, whole | {"stages": {n: s for n, s in whole["stages"].items() if n != name}}
        )
        assert "dvc.lock" in told(), name
        assert "dvc.lock" in refusal(), name
    assert untouched()


def entries(stage: dict[str, Any]) -> Iterator[tuple[str, int]]:
    yield from (("deps", i) for i in range(len(stage["deps"])))
    yield from (("outs", i) for i in range(len(stage["outs"])))


def changed(lock: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that can be changed."""
    return dict(json.loads(json.dumps(lock)))


def test_a_lock_whose_stage_lacks_a_part_is_noticed(workspace: Path) -> None:
    whole = lock_of(workspace)
    for name, stage in whole["stages"].items():
        for part in ("cmd", "deps", "params", "outs"):
            if stage[part] and stage[part] != {"params.yaml": {}}:
                lock = changed(whole)
                del lock["stages"][name][part]
                write_lock(workspace, lock)
                assert "dvc.lock" in told("."), f"{name} without {part}"
                assert name == "report" or "dvc.lock" in refusal(), f"{name} without {part}"
        for section, index in entries(stage):
            lock = changed(whole)
            del lock["stages"][name][section][index]
            write_lock(workspace, lock)
            assert "dvc.lock" in told("."), f"{name} without {section} {index}"


def test_a_lock_with_any_hash_or_size_changed_is_noticed(workspace: Path) -> None:
    whole = lock_of(workspace)
    for name, stage in whole["stages"].items():
        for section, index in entries(stage):
            for key, value in (("md5", "0" * 32), ("size", 3), ("nfiles", 99)):
                lock = changed(whole)
                entry = lock["stages"][name][section][index]
                if key not in entry or (section == "deps" and not recorded_twice(entry, key)):
                    continue
                folder = key == "md5" and entry["md5"].endswith(".dir")
                entry[key] = f"{value}.dir" if folder else value
                write_lock(workspace, lock)
                assert "dvc.lock" in told("."), f"{name} {section} {entry['path']} {key}"


def recorded_twice(entry: dict[str, Any], key: str) -> bool:
    """Whether what a stage read is recorded elsewhere, too; other records cannot be compared."""
    path = entry["path"]
    if key == "md5":
        return not path.endswith(".py")
    return path.startswith("artifacts/") and path != "artifacts/evaluations"


def test_data_dvc_edited_in_any_part_is_noticed(workspace: Path) -> None:
    path = workspace / "data.dvc"
    pinned = yaml.safe_load(path.read_text())["outs"][0]
    edits: list[dict[str, Any]] = [
        {"md5": "0" * 32 + ".dir"},
        {"md5": "0" * 32},
        {"md5": pinned["md5"][:-4]},
        {"md5": 5},
        {"size": pinned["size"] + 1},
        {"size": None},
        {"size": "1"},
        {"nfiles": pinned["nfiles"] - 1},
        {"nfiles": None},
        {"path": "other"},
        {"path": None},
        {"hash": None},
        {"md5": None},
    ]
    for edit in edits:
        entry = {key: v for key, v in (pinned | edit).items() if v is not None}
        path.write_text(yaml.safe_dump({"outs": [entry]}))
        assert "data.dvc" in told(), edit
        assert "data.dvc" in refusal(), edit
    for text in ("", "outs: []\n", "outs:\n", "[]\n", "x", "outs: [{}]\n"):
        path.write_text(text)
        assert "data.dvc" in told(), text
    assert untouched()


def test_without_a_cache_everything_is_still_compared(workspace: Path) -> None:
    shutil.rmtree(workspace / ".dvc/cache")
    assert told() == ""
    for name in FILES[:-2]:
        content = (workspace / name).read_bytes()
        (workspace / name).write_bytes(flipped(content, len(content) // 2))
        folder = name.rpartition("/")[0]
        assert (
            name in told()
            or folder in told()
            or "artifacts/evaluations" in told()
            or (name.startswith("data/") and "data: is not what data.dvc pins" in told())
        ), name
        assert refusal()
        (workspace / name).write_bytes(content)


def test_evidence_of_another_state_is_refused(workspace: Path) -> None:
    """Each measurement names in `dvc.lock` what it read; that has to be what is here now."""
    older = lock_of(workspace)["stages"]
    Measured(workspace, rates={"math": 0.004})
    for name, text in (
        ("evaluate_merged@concat", "was not evaluated as it is now"),
        ("excess@concat", "was measured of another artifacts/merged/concat than this one"),
    ):
        newer = lock_of(workspace)
        recorded = {entry["path"]: entry for entry in older[name]["deps"]}
        changed = json.loads(json.dumps(newer))
        deps = changed["stages"][name]["deps"]
        changed["stages"][name]["deps"] = [
            recorded[MERGED] if entry["path"] == MERGED else entry for entry in deps
        ]
        write_lock(workspace, changed)
        assert text in refusal()
        write_lock(workspace, newer)
    judge()


def test_evidence_of_other_data_is_refused(workspace: Path) -> None:
    before = lock_of(workspace)
    path = workspace / "data/safety/test.jsonl"
    path.write_text(path.read_text().replace("safety test 0", "safety test zero"))
    made = Made.__new__(Made)
    made.folder = workspace
    made._write("data.dvc", {"outs": [made._recorded("data")]})
    line = refusal()
    assert "stage evaluate_merged@concat: deps: data is recorded as" in line
    assert "stage evaluate_adapters@safety: deps: data/safety/test.jsonl is recorded as" in line
    assert lock_of(workspace) == before


def test_evidence_by_other_settings_is_refused(workspace: Path) -> None:
    lock = lock_of(workspace)
    params = lock["stages"]["evaluate_adapters@safety"]["params"]["params.yaml"]
    params["evaluation"] = {"batch_size": 4}
    write_lock(workspace, lock)
    assert refusal().startswith(
        "dvc.lock: evaluation.batch_size was 8 in stage evaluate_merged@concat, 4 in "
        "evaluate_adapters@safety"
    )


def test_settings_of_another_base_are_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("dtype: float32", "dtype: bfloat16"))
    said = "params.yaml: model.dtype is 'bfloat16', but artifacts/math/calibrated was made with"
    for command in (["gate"], ["register", MERGED], ["card", MERGED], ["push", MERGED, "me/it"]):
        assert said in refused(capsys, *command, *(["--dry-run", "out"] * (command[0] == "push")))
    assert untouched()


def test_only_the_workspaces_own_adapter_is_registered(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(tmp_path / "other", rates={"math": 0.004})
    for word in (str(tmp_path / "other" / MERGED), "."):
        assert "only an artifact of the workspace as it stands can be registered" in refused(
            capsys, "register", word
        )
    assert main(["card", str(tmp_path / "other" / MERGED)]) == 0
    assert "What merging costs each task was not measured." in capsys.readouterr().out


def test_a_candidate_of_the_champions_key_with_other_bytes_is_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may compute other bytes from the same: they are another model."""
    Made(folder)
    first = gate.run_gate(folder, params_file.load(), send=False)
    assert str(first.version) == "lori version 1"
    lock = (folder / "dvc.lock").read_text()
    tags = Registry(folder).client
    tags.set_model_version_tag("lori", "1", "lori.md5", "0" * 32 + ".dir")
    second = gate.run_gate(folder, params_file.load(), send=False)
    assert str(second.version) == "lori version 2"
    assert second.promoted
    assert (folder / "dvc.lock").read_text() == lock


def test_verdicts_of_the_champion_that_were_edited_are_not_believed(folder: Path) -> None:
    from flows.tracking.sending import ship_all

    Made(folder, right={"math": 30})
    gate.run_gate(folder, params_file.load())
    ship_all(folder)
    Made(folder, rates={"math": 0.004}, right={"math": 31})
    kept = next((folder / "mlruns").rglob("evaluation/concat/math.jsonl"))
    md5 = md5_of(kept)
    kept.write_text(kept.read_text().replace("true", "false"))
    cached = folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.write_bytes(kept.read_bytes())
    with pytest.raises(LoriError, match=r"lori version 1: its verdicts are gone .*damaged"):
        gate.run_gate(folder, params_file.load(), send=False)
    assert not (folder / "gate/verdict.json").read_text().count("version 2")


def test_a_listing_in_the_cache_that_was_edited_is_not_believed(workspace: Path) -> None:
    md5 = lock_of(workspace)["stages"]["merge@concat"]["outs"][0]["md5"]
    listing = workspace / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    said = json.loads(listing.read_text())
    assert folder_md5({item["relpath"]: item["md5"] for item in said}) == md5
    said[0]["md5"], said[1]["md5"] = said[1]["md5"], said[0]["md5"]
    listing.write_text(json.dumps(said))
    with pytest.raises(LoriError, match=rf"{md5[2:]}: damaged: this listing"):
        why.restore(MERGED, Path("out"), Path())
    assert not Path("out").exists()


def test_a_damaged_side_is_not_compared(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(tmp_path / "other", right={"math": 20})
    other = str(tmp_path / "other" / MERGED)
    assert main(["compare", MERGED, other]) == 0
    assert main(["diff", MERGED, other]) == 0
    capsys.readouterr()
    rows = workspace / ROWS
    rows.write_text(rows.read_text().replace("true", "false", 1))
    assert ROWS in refused(capsys, "compare", MERGED, other)
    assert ROWS in refused(capsys, "compare", str(Path(ROWS).parent), other)
    assert ROWS in refused(capsys, "diff", MERGED, other)


def test_a_kept_state_that_is_not_the_registered_models_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    gate.run_gate(folder, params_file.load(), send=False)
    assert main(["why", "models:/lori@champion"]) == 0
    capsys.readouterr()
    kept = folder / ".lori/snapshots/lori-1/snapshot/dvc.lock"
    Made(folder, rates={"math": 0.004})
    shutil.copy(folder / "dvc.lock", kept)
    line = refused(capsys, "why", "models:/lori@champion")
    assert re.search(r"\.lori/snapshots/lori-1/snapshot/dvc\.lock: does not record", line)


def test_an_artifact_that_a_cut_lock_does_not_record_is_said_to_be_here(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = lock_of(workspace)
    del lock["stages"]["merge@concat"]
    write_lock(workspace, lock)
    line = refused(capsys, "why", MERGED)
    assert "artifacts/merged/concat: is here, but dvc.lock records no stage that made it" in line


def test_an_edited_report_is_not_printed(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = workspace / "report/index.html"
    summary.write_text(summary.read_text().replace("page", "pags"))
    assert "report: is not what dvc.lock records" in refused(capsys, "report")


def test_what_a_killed_process_left_half_written_is_no_damage(workspace: Path) -> None:
    for folder in ("data/math", MERGED, "artifacts/evaluations/merged/concat/concat"):
        (workspace / folder / ".math.jsonl.new").write_text("{")
    assert told(".") == ""


def test_a_state_in_git_is_compared_too(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.email=a@example.org", "-c", "user.name=A"]
        subprocess.run(["git", *who, *arguments], cwd=workspace, check=True, capture_output=True)

    (workspace / ".gitignore").write_text("/data\n/artifacts\n/mlflow.db\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "whole")
    assert main(["card", f"{MERGED}@HEAD"]) == 0
    page = capsys.readouterr().out
    assert "| math | share with the right final number | 75.0 |" in page
    assert "- math: +0.500 nats an example" in page
    path = workspace / "metrics/evaluate/merged/concat.json"
    path.write_text(path.read_text().replace("0.75", "0.99"))
    git("commit", "-qam", "edited")
    assert path.relative_to(workspace).as_posix() in refused(capsys, "card", f"{MERGED}@HEAD")
    assert main(["why", f"{MERGED}@HEAD"]) == 1
    assert "99" not in "".join(re.findall("scores.*", capsys.readouterr().out))


def test_what_is_missing_from_the_evidence_is_said(workspace: Path) -> None:
    shutil.rmtree(workspace / "artifacts/evaluations/merged")
    with pytest.raises(DataError, match="artifacts/evaluations/merged/concat: is not here"):
        judge()
