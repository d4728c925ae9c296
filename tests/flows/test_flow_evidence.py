"""What lineage commands and the gate tell and judge by is what was measured of what is here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made import Made
from measured import (
    ALONE,
    EXCESS,
    MERGED,
    ROWS,
    Measured,
    flipped,
    judge,
    lock_of,
    refusal,
    told,
    untouched,
    write_lock,
)

from flows.lineage import why
from flows.lineage.named import Named
from flows.serving import card, gate, packaging
from flows.serving.comparability import scoring_code
from flows.tracking.registry import CHAMPION, Registry
from flows.versioning import snapshot
from flows.versioning.dvc.lock_file import Entry, StageEntry
from flows.versioning.objects import folder_md5, md5_of
from flows.versioning.snapshot import of_folder
from lori_cli import main
from lori_core.core.errors import AdapterError, DataError, InputError, LoriError
from lori_core.core.files.atomic import write_json
from lori_core.pipeline import params_file
from support import refused


@pytest.mark.parametrize("path", [EXCESS, ROWS, ALONE])
def test_numbers_that_would_let_a_refused_model_pass_are_not_believed(
    measured: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (measured / path).read_text()
    edits = {EXCESS: ("0.5", "0.0"), ROWS: ("false", "true"), ALONE: ("true", "false")}
    (measured / path).write_text(text.replace(*edits[path], 1))
    assert path in refused(capsys, "gate")
    assert untouched()


def test_edited_scores_are_neither_told_nor_put_on_a_card(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = measured / "metrics/evaluate/merged/concat.json"
    path.write_text(path.read_text().replace("0.75", "0.99"))
    for extra in ([], ["--no-verify"], ["--json"]):
        assert main(["why", MERGED, *extra]) == 1
        shown = capsys.readouterr()
        assert "99" not in "\n".join(line for line in shown.out.splitlines() if "score" in line)
        assert "not what was made: metrics/evaluate/merged/concat.json" in shown.err
    for command in (["card"], ["register"], ["push", "--dry-run", "out", "me/it"]):
        line = refused(capsys, command[0], MERGED, *command[1:])
        assert "metrics/evaluate/merged/concat.json" in line
    assert not (measured / "out").exists()


def test_the_card_of_a_registered_model_shows_what_was_measured(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", MERGED]) == 0
    here = measurements(capsys.readouterr().out)
    assert main(["register", MERGED, "--as", "m"]) == 0
    shutil.rmtree(measured / "metrics")  # the snapshot that was registered has its own
    capsys.readouterr()
    assert main(["card", "models:/m/1"]) == 0
    assert measurements(capsys.readouterr().out) == here
    assert "75.0" in here
    assert "+0.500 nats" in here


def test_a_card_does_not_call_unmeasured_what_was_measured(measured: Path) -> None:
    saved = snapshot.save(measured, "run")
    assert saved is not None
    shutil.rmtree(saved / "metrics")  # as snapshots of older versions
    named = Named(snapshot.of_folder("run", saved, measured), MERGED)

    def shown() -> str:
        lineage = why.lineage_of(named, remote=False)
        return measurements(card.card(params_file.load(), lineage, lineage.nodes[MERGED]))

    whole = shown()
    assert "75.0" in whole  # the workspace still has the files with these hashes
    assert "+0.500 nats" in whole
    shutil.rmtree(measured / "metrics")
    missing = "its metrics are not here (metrics/evaluate/merged/concat.json)."
    assert shown().splitlines() == [
        "## Scores",
        "",
        f"It was evaluated, but {missing}",
        "",
        "## Safety",
        "",
        f"Whether its refusals were measured is not known: {missing}",
        "",
        "## Interference",
        "",
        f"The excess loss of merging was measured, but its metrics are not here ({EXCESS}).",
    ]


def test_a_file_of_metrics_with_a_secret_is_not_saved(measured: Path) -> None:
    (measured / "metrics/leak.json").write_text('{"url": "https://me:password@host/"}')
    saved = snapshot.save(measured, "run")
    assert saved is not None
    assert (saved / EXCESS).read_bytes() == (measured / EXCESS).read_bytes()
    assert not (saved / "metrics/leak.json").exists()


def measurements(page: str) -> str:
    """Return a card's sections about scores, safety and interference."""
    return page[page.index("## Scores") : page.index("## How it was made")].strip()


def test_evidence_of_another_state_is_refused(measured: Path) -> None:
    """Each measurement names in `dvc.lock` what it read; that has to be what is here now."""
    older = lock_of(measured)["stages"]
    Measured(measured, rates={"math": 0.004})
    for name, text in (
        ("evaluate_merged@concat", "was not evaluated as it is now"),
        ("excess@concat", "was measured with other bytes of artifacts/merged/concat"),
    ):
        newer = lock_of(measured)
        recorded = {entry["path"]: entry for entry in older[name]["deps"]}
        changed = json.loads(json.dumps(newer))
        deps = changed["stages"][name]["deps"]
        changed["stages"][name]["deps"] = [
            recorded[MERGED] if entry["path"] == MERGED else entry for entry in deps
        ]
        write_lock(measured, changed)
        assert text in refusal()
        write_lock(measured, newer)
    judge()


def test_evidence_of_other_data_is_refused(measured: Path) -> None:
    before = lock_of(measured)
    path = measured / "data/safety/test.jsonl"
    path.write_text(path.read_text().replace("safety test 0", "safety test zero"))
    made = Made.__new__(Made)
    made.folder = measured
    made._write("data.dvc", {"outs": [made._recorded("data")]})
    line = refusal()
    assert "stage evaluate_merged@concat: deps: data is recorded as" in line
    assert "stage evaluate_adapters@safety: deps: data/safety/test.jsonl is recorded as" in line
    assert lock_of(measured) == before


def test_evidence_by_other_settings_is_refused(measured: Path) -> None:
    lock = lock_of(measured)
    params = lock["stages"]["evaluate_adapters@safety"]["params"]["params.yaml"]
    params["evaluation"] = {"batch_size": 4}
    write_lock(measured, lock)
    assert refusal().startswith(
        "dvc.lock: evaluation.batch_size was 8 in stage evaluate_merged@concat, 4 in "
        "evaluate_adapters@safety"
    )


def test_settings_of_another_base_are_refused(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = measured / "params.yaml"
    path.write_text(path.read_text().replace("dtype: float32", "dtype: bfloat16"))
    said = "params.yaml: model.dtype is 'bfloat16', but artifacts/math/calibrated was made with"
    for command in (["gate"], ["register", MERGED], ["card", MERGED], ["push", MERGED, "me/it"]):
        assert said in refused(capsys, *command, *(["--dry-run", "out"] * (command[0] == "push")))
    assert untouched()


def test_only_the_workspaces_own_adapter_is_registered(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(tmp_path / "other", rates={"math": 0.004})
    for word in (str(tmp_path / "other" / MERGED), "."):
        assert "only an artifact of the workspace as it is now can be registered" in refused(
            capsys, "register", word
        )
    assert main(["card", str(tmp_path / "other" / MERGED)]) == 0
    assert "The excess loss of merging was not measured." in capsys.readouterr().out


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


def evaluated_with(folder: Path, **settings: int) -> None:
    """Note other settings for the evaluation of the merged adapter, as a run with them would."""
    lock = lock_of(folder)
    lock["stages"]["evaluate_merged@concat"]["params"]["params.yaml"]["evaluation"] = settings
    write_lock(folder, lock)


def test_requests_are_limited_as_in_the_evaluation(tmp_path: Path) -> None:
    Made(tmp_path)
    evaluated_with(tmp_path, batch_size=4, max_prompt_length=99)
    params = params_file.load(tmp_path / "params.yaml")
    node = why.lineage_of(why.resolve(str(tmp_path / MERGED), Path()), remote=False).nodes[MERGED]
    limits = packaging._limits(packaging._as_evaluated(params, node, tmp_path))
    assert (limits["max_prompts"], limits["max_prompt_length"]) == (4, 99)
    evaluated_with(tmp_path, setting_of_another_version=1)
    with pytest.raises(InputError, match="lori does not know; lori run evaluates it again"):
        packaging._as_evaluated(params, node, tmp_path)


def test_a_champion_that_was_evaluated_by_other_settings_is_not_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder, right={"math": 30})
    gate.run_gate(folder, params_file.load(), send=False)
    Made(folder, rates={"math": 0.004}, right={"math": 31})
    evaluated_with(folder, batch_size=8, limit=40)
    assert refused(capsys, "gate") == (
        "error: lori version 1: was evaluated with evaluation.limit None, artifacts/merged/concat "
        "with 40: they cannot be compared; put it back, or evaluate the champion likewise: in a "
        "clone, lori restore models:/lori/1, lori run, lori register artifacts/merged/concat --as "
        "lori"
    )
    evaluated_with(folder, batch_size=8)
    assert gate.run_gate(folder, params_file.load(), send=False).promoted


def scored_by(folder: Path, **code: str) -> None:
    """Note the code of scorers for the evaluation of the merged adapter, as `lori init` does."""
    (folder / "code").mkdir(exist_ok=True)
    path = folder / "code/evaluate_merged.json"
    scoring = "lori_core/evaluation/scoring"
    write_json(path, {f"{scoring}/{name}.py": md5 * 32 for name, md5 in code.items()})
    lock = lock_of(folder)
    deps = lock["stages"]["evaluate_merged@concat"]["deps"]
    entry = {"path": "code/evaluate_merged.json", "hash": "md5", "md5": md5_of(path), "size": 1}
    deps.append(entry)
    write_lock(folder, lock)


def test_a_champion_that_was_scored_by_other_code_is_not_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder, right={"math": 30})
    scored_by(folder, scorers="a", refusals="a", setups="a")
    gate.run_gate(folder, params_file.load(), send=False)
    Made(folder, rates={"math": 0.004}, right={"math": 31})
    scored_by(folder, scorers="a", refusals="b", setups="b")
    assert refused(capsys, "gate") == (
        "error: lori version 1: was scored by other code than artifacts/merged/concat "
        "(lori_core/evaluation/scoring/refusals.py differs): they cannot be compared; put it back, "
        "or evaluate the champion likewise: in a clone, lori restore models:/lori/1, lori run, "
        "lori register artifacts/merged/concat --as lori"
    )
    Made(folder, rates={"math": 0.004}, right={"math": 31})
    scored_by(folder, scorers="a", refusals="a", setups="b")
    assert gate.run_gate(folder, params_file.load(), send=False).promoted


def test_models_that_were_evaluated_otherwise_are_not_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    for place in (folder, other):
        Made(place)
        scored_by(place, scorers="a")
    argv = ["compare", MERGED, str(other / MERGED)]
    assert main(argv) == 0
    capsys.readouterr()
    evaluated_with(other, batch_size=8, samples=4)
    assert refused(capsys, *argv) == (
        f"error: {other / MERGED}: was evaluated with evaluation.samples 4, {MERGED} with 1: they "
        "cannot be compared; evaluate both alike with lori run, or compare the folders in which "
        "lori rejudge judges both models' safety sets again"
    )
    evaluated_with(other, batch_size=8, samples=1)
    assert main(argv) == 0
    Made(other)
    scored_by(other, scorers="b")
    line = "was scored by other code than artifacts/merged/concat (lori_core/evaluation/scoring/sco"
    capsys.readouterr()
    assert line in refused(capsys, *argv)
    rows = "artifacts/evaluations/merged/concat/concat"
    assert "was scored by other code" in refused(capsys, "compare", rows, str(other / MERGED))


def test_the_code_that_scored_is_read_from_folders_files_and_digests(tmp_path: Path) -> None:
    def recorded(**deps: str) -> dict[str, str]:
        entries = {path: Entry(path, md5) for path, md5 in deps.items()}
        stage = StageEntry("evaluate_merged@concat", "", entries, {}, {})
        return scoring_code(stage, of_folder("it", tmp_path, tmp_path))

    scoring = "lori_core/evaluation/scoring"
    found = recorded(**{scoring: "a.dir", "lori_core/evaluation/evaluate.py": "b", "mine.py": "c"})
    assert found == {scoring: "a.dir", "mine.py": "c"}
    files = {f"{scoring}/{name}.py": name for name in ("scorers", "refusal_judge")}
    assert recorded(**files) == {f"{scoring}/scorers.py": "scorers"}
    (tmp_path / "code").mkdir()
    write_json(tmp_path / "code/evaluate_merged.json", {**files, "lori_core/data/answers.py": "d"})
    md5 = md5_of(tmp_path / "code/evaluate_merged.json")
    assert recorded(**{"code/evaluate_merged.json": md5}) == {f"{scoring}/scorers.py": "scorers"}
    assert recorded(**{"code/evaluate_merged.json": "0" * 32}) == {}


def test_a_champion_that_is_evaluated_again_is_compared_by_the_new_settings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder, right={"math": 30})
    gate.run_gate(folder, params_file.load(), send=False)
    evaluated_with(folder, batch_size=8, max_prompt_length=40)
    assert main(["register", MERGED, "--as", "lori"]) == 0
    assert "lori version 1" in capsys.readouterr().out
    Made(folder, rates={"math": 0.004}, right={"math": 31})
    evaluated_with(folder, batch_size=8, max_prompt_length=40)
    assert gate.run_gate(folder, params_file.load(), send=False).promoted


def test_a_registered_adapter_that_was_changed_is_not_served(folder: Path) -> None:
    import mlflow

    Made(folder)
    gate.run_gate(folder, params_file.load(), send=False)
    (stored,) = (folder / "mlruns/models").rglob("adapter_model.safetensors")
    stored.write_bytes(flipped(stored.read_bytes(), stored.stat().st_size - 2))
    with pytest.raises(AdapterError, match="differs from what was registered and judged"):
        mlflow.pyfunc.load_model(f"models:/lori@{CHAMPION}")


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


def test_a_listing_in_the_cache_that_was_edited_is_not_believed(measured: Path) -> None:
    md5 = lock_of(measured)["stages"]["merge@concat"]["outs"][0]["md5"]
    listing = measured / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    said = json.loads(listing.read_text())
    assert folder_md5({item["relpath"]: item["md5"] for item in said}) == md5
    said[0]["md5"], said[1]["md5"] = said[1]["md5"], said[0]["md5"]
    listing.write_text(json.dumps(said))
    with pytest.raises(LoriError, match=rf"{md5[2:]}: damaged: this listing"):
        why.restore(MERGED, Path("out"), Path())
    assert not Path("out").exists()


def test_a_damaged_side_is_not_compared(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(tmp_path / "other", right={"math": 20})
    other = str(tmp_path / "other" / MERGED)
    assert main(["compare", MERGED, other]) == 0
    assert main(["diff", MERGED, other]) == 0
    capsys.readouterr()
    rows = measured / ROWS
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
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = lock_of(measured)
    del lock["stages"]["merge@concat"]
    write_lock(measured, lock)
    line = refused(capsys, "why", MERGED)
    assert "artifacts/merged/concat: is here, but dvc.lock records no stage that made it" in line


def test_an_edited_report_is_not_printed(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = measured / "report/index.html"
    summary.write_text(summary.read_text().replace("page", "pags"))
    assert "report: is not what dvc.lock records" in refused(capsys, "report")


def test_what_a_killed_process_left_half_written_is_no_damage(measured: Path) -> None:
    for folder in ("data/math", MERGED, "artifacts/evaluations/merged/concat/concat"):
        (measured / folder / ".math.jsonl.new").write_text("{")
    assert told(".") == ""


def test_a_state_in_git_is_compared_too(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.email=a@example.org", "-c", "user.name=A"]
        subprocess.run(["git", *who, *arguments], cwd=measured, check=True, capture_output=True)

    (measured / ".gitignore").write_text("/data\n/artifacts\n/mlflow.db\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "whole")
    assert main(["card", f"{MERGED}@HEAD"]) == 0
    page = capsys.readouterr().out
    assert "| math | share with the right final number | 75.0 |" in page
    assert "- math: +0.500 nats an example" in page
    path = measured / "metrics/evaluate/merged/concat.json"
    path.write_text(path.read_text().replace("0.75", "0.99"))
    git("commit", "-qam", "edited")
    assert path.relative_to(measured).as_posix() in refused(capsys, "card", f"{MERGED}@HEAD")
    assert main(["why", f"{MERGED}@HEAD"]) == 1
    assert "99" not in "".join(re.findall("scores.*", capsys.readouterr().out))


def test_what_is_missing_from_the_evidence_is_said(measured: Path) -> None:
    shutil.rmtree(measured / "artifacts/evaluations/merged")
    with pytest.raises(DataError, match="artifacts/evaluations/merged/concat: is not here"):
        judge()


def test_a_setting_that_was_left_out_is_compared_at_its_default(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recorded is `model` without a quantization; params.yaml names one now."""
    path = measured / "params.yaml"
    path.write_text(path.read_text().replace("model:\n", "model:\n  quantization: 8bit\n"))
    assert "params.yaml: model.quantization is '8bit'" in refused(capsys, "gate")
    assert untouched()


def test_recorded_settings_and_code_that_are_not_those_here_are_told(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (measured / "lori_core/evaluation").mkdir(parents=True)
    (measured / "lori_core/evaluation/gate.py").write_text("# another one\n")
    path = measured / "params.yaml"
    path.write_text(path.read_text().replace("batch_size: 8", "batch_size: 9"))
    assert main(["why", MERGED]) == 1
    shown = "".join(capsys.readouterr())
    assert "params: evaluation is recorded as {'batch_size': 8}" in shown
    assert "deps: lori_core/evaluation/gate.py is recorded as" in shown
    assert "dvc.lock: stage evaluate_" in refused(capsys, "gate")
    assert untouched()
