"""From an artifact back to its data: the tree, what was tampered with, differences, restoring."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from made import Made

from flows.lineage import parameters, provenance, why
from flows.lineage import text as lineage_text
from flows.lineage.difference import diff
from flows.lineage.verification.verify import differing_bytes, verify
from flows.versioning.objects import Objects, files_below
from lori_cli import main
from lori_core.adapters.adapter import Adapter
from lori_core.core.errors import InputError, LoriError
from support import random_adapter, refused

MERGED = "artifacts/merged/concat"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "workspace"
    Made(folder)
    return folder


@pytest.fixture
def workspace(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished workspace of the test's own; the current folder."""
    folder = tmp_path / "workspace"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def problems(name: str = MERGED) -> list[str]:
    lineage = why.lineage_of(why.resolve(name, Path()))
    return [problem.name for problem in verify(lineage)]


def texts(name: str = MERGED) -> list[str]:
    lineage = why.lineage_of(why.resolve(name, Path()))
    return [str(problem) for problem in verify(lineage)]


def change_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))


def replaced(path: Path, before: str, after: str, count: int = 1) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, count))


def pin(workspace: Path) -> None:
    """Bring `data.dvc` to what lies in `data/`, as `lori pull` does."""
    made = Made.__new__(Made)
    made.folder = workspace
    made._write("data.dvc", {"outs": [made._recorded("data")]})


def with_remote(workspace: Path, remote: Path) -> None:
    shutil.copytree(workspace / ".dvc/cache/files", remote / "files")
    (workspace / ".dvc/config").write_text(
        f"[core]\n    no_scm = True\n    remote = store\n['remote \"store\"']\n    url = {remote}\n"
    )


def test_the_tree_leads_from_the_merge_to_the_data(workspace: Path) -> None:
    lineage = why.lineage_of(why.resolve(MERGED, Path()))
    assert lineage.nodes[MERGED].inputs == ["artifacts/math/adapter", "artifacts/safety/adapter"]
    assert lineage.nodes["artifacts/math/adapter"].inputs == [
        "data/math/train.jsonl",
        "artifacts/math/calibrated",
        "artifacts/math/mask.safetensors",
    ]
    kinds = {name: node.kind for name, node in lineage.nodes.items()}
    assert kinds["artifacts/math/mask.safetensors"] == "mask"
    assert kinds[MERGED] == "merged adapter"
    assert all(node.presence == "cache" and node.here for node in lineage.nodes.values())
    assert all(node.key for node in lineage.nodes.values() if node.kind != "data")
    data = lineage.nodes["data/math/train.jsonl"]
    assert data.facts["rows"] == 6
    assert data.facts["sources"] == [f"hub org/math at {'a' * 40} (licence: not stated here)"]
    assert lineage.nodes[MERGED].facts["scores"]["math"]["score"] == 0.75
    assert problems() == []


def test_the_command_prints_the_tree_and_json(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why", MERGED]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{MERGED}  [merged adapter]  key ")
    assert "method concat, weights 0.5, 0.5" in shown
    assert "scores math: exact_match 75.0" in shown
    assert "learning_rate 0.002" in shown
    assert shown.rstrip().endswith("9 nodes: 9 cache")
    assert main(["why", MERGED, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["nodes"]["artifacts/math/adapter"]["parameters"]["training.learning_rate"] == 0.002
    assert said["problems"] == []


def test_a_stage_and_a_file_inside_name_their_artifact(workspace: Path) -> None:
    assert why.resolve("train@math", Path()).path == "artifacts/math/adapter"
    inside = "artifacts/math/adapter/adapter.json"
    assert why.resolve(inside, Path()).path == "artifacts/math/adapter"
    assert why.resolve(str(workspace / MERGED), Path()).path == MERGED


def test_an_unknown_name_is_refused_with_the_nearest(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "why", "artifacts/merged/concta")
    assert "did you mean 'artifacts/merged/concat'?" in line


def test_a_workspace_where_nothing_ran_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no stage has run here yet" in refused(capsys, "why", "artifacts/x")


def test_a_tampered_adapter_is_named_with_its_bytes(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workspace / "artifacts/math/adapter/adapter.safetensors"
    change_byte(file, 2000)
    change_byte(file, 2009)
    assert problems() == ["artifacts/math/adapter/adapter.safetensors"]
    assert "bytes 2000-2009 differ" in texts()[0]
    assert "lori restore artifacts/math/adapter OUT" in texts()[0]
    assert main(["why", MERGED]) == 1
    captured = capsys.readouterr()
    assert "artifacts/math/adapter  [adapter]" in captured.out
    assert "CHANGED" in captured.out
    assert "not what was made: artifacts/math/adapter/adapter.safetensors" in captured.err


def test_an_edited_adapter_json_is_named(workspace: Path) -> None:
    replaced(workspace / "artifacts/math/adapter/adapter.json", '"task": "math"', '"task": "muth"')
    assert problems() == ["artifacts/math/adapter/adapter.json"]


def test_a_tampered_mask_is_named_with_its_bytes(workspace: Path) -> None:
    file = workspace / "artifacts/safety/mask.safetensors"
    change_byte(file, file.stat().st_size - 3)
    assert problems() == ["artifacts/safety/mask.safetensors"]
    place = file.stat().st_size - 3
    assert f"bytes {place}-{place} differ" in texts()[0]


def test_a_tampered_file_of_data_is_named(workspace: Path) -> None:
    replaced(workspace / "data/math/train.jsonl", "math train 3", "math train 8")
    assert problems() == ["data/math/train.jsonl"]


def test_data_pulled_but_not_pinned_is_not_called_tampered(workspace: Path) -> None:
    other = workspace.parent / "other"
    Made(other, rows={"math": "another row"})
    shutil.rmtree(workspace / "data")
    shutil.copytree(other / "data", workspace / "data")
    assert problems() == ["data.dvc"]


@pytest.mark.parametrize(
    "section",
    ["outs of a read artifact", "outs of an unread one", "deps", "parameter", "override", "size"],
)
def test_a_tampered_lock_is_named_and_nothing_else(workspace: Path, section: str) -> None:
    lock = workspace / "dvc.lock"
    lineage = why.lineage_of(why.resolve(MERGED, Path()))
    adapter, merged = lineage.nodes["artifacts/math/adapter"], lineage.nodes[MERGED]
    calibrated = lineage.nodes["artifacts/math/calibrated"].entry.md5
    if section == "outs of a read artifact":
        text = lock.read_text()
        at = text.index(merged.entry.md5)
        lock.write_text(text[:at] + "0" * 32 + ".dir" + text[at + len(merged.entry.md5) :])
    elif section == "outs of an unread one":
        replaced(lock, adapter.entry.md5, "0" * 32 + ".dir")
    elif section == "deps":
        text = lock.read_text()
        at = text.rindex(calibrated)
        lock.write_text(text[:at] + "0" * 32 + ".dir" + text[at + len(calibrated) :])
    elif section == "parameter":
        replaced(lock, "learning_rate: 0.002", "learning_rate: 0.003")
    elif section == "override":
        replaced(lock, "tasks.math.training: {}", "tasks.math.training: {batch_size: 16}")
    else:
        size = f"md5: {adapter.entry.md5}\n      size: "
        replaced(lock, f"{size}{adapter.entry.size}", f"{size}7")
    assert set(problems()) == {"dvc.lock"}
    assert "stage " in texts()[0]


def test_a_lock_that_is_no_yaml_is_named_with_its_line(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "dvc.lock").write_text("schema: '2.0'\nstages:\n  train: [\n")
    assert "dvc.lock:4: damaged" in refused(capsys, "why", MERGED)


def test_presence_is_cache_remote_or_gone(workspace: Path, tmp_path: Path) -> None:
    with_remote(workspace, tmp_path / "remote")
    lineage = why.lineage_of(why.resolve(MERGED, Path()))
    files = Objects(workspace).files(lineage.nodes["artifacts/math/adapter"].entry.md5) or {}
    first = next(iter(files.values()))
    (workspace / ".dvc/cache/files/md5" / first[:2] / first[2:]).unlink()
    calibrated = lineage.nodes["artifacts/math/calibrated"].entry.md5
    for root in (workspace / ".dvc/cache", tmp_path / "remote"):
        (root / "files/md5" / calibrated[:2] / calibrated[2:]).unlink()
    again = why.lineage_of(why.resolve(MERGED, Path()))
    assert again.nodes["artifacts/math/adapter"].presence == "remote"
    assert again.nodes["artifacts/math/calibrated"].presence == "gone"
    assert again.nodes["artifacts/safety/adapter"].presence == "cache"
    assert "gone: artifacts/math/calibrated" in lineage_text.as_text(again, [])


def test_a_clean_clone_restores_the_exact_bytes_from_the_remote(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_remote(workspace, tmp_path / "remote")
    clone = tmp_path / "clone"
    (clone / ".dvc").mkdir(parents=True)
    for name in ("dvc.lock", "data.dvc", "params.yaml", ".dvc/config"):
        shutil.copy(workspace / name, clone / name)
    monkeypatch.chdir(clone)
    for name in (MERGED, "artifacts/math/mask.safetensors", "data/math/train.jsonl", "data"):
        out = clone / "back" / name.replace("/", "-")
        restored, size = why.restore(name, out, Path())
        assert restored == name
        original = files_below(workspace / name)
        assert {n: p.read_bytes() for n, p in files_below(out).items()} == {
            n: p.read_bytes() for n, p in original.items()
        }
        assert size == sum(path.stat().st_size for path in original.values())
    lineage = why.lineage_of(why.resolve(MERGED, Path()))
    assert {node.presence for node in lineage.nodes.values()} == {"remote"}
    assert (
        lineage.nodes[MERGED].key
        == why.lineage_of(why.resolve(str(workspace / MERGED), Path())).nodes[MERGED].key
    )


def test_what_is_gone_or_damaged_is_not_restored(workspace: Path, tmp_path: Path) -> None:
    lineage = why.lineage_of(why.resolve(MERGED, Path()))
    files = Objects(workspace).files(lineage.nodes[MERGED].entry.md5) or {}
    md5 = files["adapter.safetensors"]
    cached = workspace / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    change_byte(cached, 5)
    with pytest.raises(LoriError, match="a copy exists but is damaged"):
        why.restore(MERGED, tmp_path / "out", Path())
    cached.unlink()
    with pytest.raises(LoriError, match="is not in the cache, no remote is set"):
        why.restore(MERGED, tmp_path / "out", Path())
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        why.restore(MERGED, tmp_path / "out", Path())


def test_a_folder_of_the_data_is_restored(workspace: Path, tmp_path: Path) -> None:
    recorded = {path.name: path.read_bytes() for path in Path("data/math").iterdir()}
    shutil.rmtree("data")  # the bytes come from the cache, which has no listing of data/math
    name, size = why.restore("data/math", tmp_path / "out", Path())
    restored = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {n: restored[n] for n in recorded} == recorded
    assert (name, size) == ("data/math", sum(map(len, recorded.values())))


def test_a_stage_is_meant_where_a_branch_has_the_name_of_its_task(workspace: Path) -> None:
    for words in (
        ["init", "--quiet", "--initial-branch=math"],
        ["-c", "user.name=me", "-c", "user.email=me@here", "commit", "-qm", "m", "--allow-empty"],
    ):
        subprocess.run(["git", *words], check=True, capture_output=True)
    named = why.resolve("train@math", Path())
    assert (named.snapshot.here, named.path) == (True, "artifacts/math/adapter")


def test_restore_replaces_only_by_force(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask, out, file = "artifacts/math/mask.safetensors", tmp_path / "out", tmp_path / "file"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    file.write_text("mine")
    for name, place in ((MERGED, out), (mask, file)):
        assert "exists already" in refused(capsys, "restore", name, str(place))
    assert "is no folder" in refused(capsys, "restore", MERGED, str(file), "--force")
    assert "is a folder; name a file" in refused(capsys, "restore", mask, str(out), "--force")
    (tmp_path / "link").symlink_to(out)
    for name in (MERGED, mask):
        for more in ([], ["--force"]):
            assert "link" in refused(capsys, "restore", name, str(tmp_path / "link"), *more)
    assert (out / "notes.txt").read_text() == file.read_text() == "mine"
    assert main(["restore", MERGED, str(out), "--force"]) == 0
    assert main(["restore", mask, str(file), "--force"]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["adapter.json", "adapter.safetensors"]
    assert file.read_bytes() == (workspace / mask).read_bytes()


@pytest.mark.parametrize("name", ["data/math/train.jsonl", MERGED])
def test_restore_writes_no_file_of_a_repository_or_of_what_it_reads(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    cache, remote = tmp_path / "cache", tmp_path / "remote"
    with_remote(workspace, remote)
    (workspace / ".dvc/cache").rename(cache)
    with (workspace / ".dvc/config").open("a") as config:
        config.write(f"[cache]\n    dir = {cache}\n")
    (workspace / ".git").mkdir(exist_ok=True)
    for file in (".git/HEAD.x", "plain"):
        (workspace / file).write_text("kept")
    before = {path for path in tmp_path.rglob("*") if "tmp" not in path.relative_to(tmp_path).parts}
    for out, message in (
        (".git/HEAD.x", "lies in .git, which is git's or DVC's"),
        (".git/new/x", "lies in .git, which is git's or DVC's"),
        (".dvc/config", "lies in .dvc, which is git's or DVC's"),
        ("plain/x", "plain is no folder; name a"),
        (f"{cache}/files/md5/x", f"lies in, the input {cache}/files/md5; name another folder"),
        (f"{remote}/files", f"holds the input {remote}/files/md5; name another folder"),
    ):
        assert message in refused(capsys, "restore", name, out, "--force")
        if not Path(out).exists():
            assert message in refused(capsys, "restore", name, out)
    after = {path for path in tmp_path.rglob("*") if "tmp" not in path.relative_to(tmp_path).parts}
    assert after == before
    assert (workspace / ".git/HEAD.x").read_text() == "kept"


def test_bases_are_compared_by_content(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for change in ({"name": "/moved"}, {"settings": "another"}):
        (key,) = change

        def rebased(change: dict[str, str] = change, **options: Any) -> Adapter:
            adapter = random_adapter(**options)
            return replace(adapter, base=replace(adapter.base, **change))

        monkeypatch.setattr("made.random_adapter", rebased)
        Made(tmp_path / key)
        other = why.resolve(str(tmp_path / key / MERGED), Path())
        found = [(d.kind, d.name, d.second) for d in diff(why.resolve(MERGED, Path()), other)]
        bases = [("base", "random:llama, config", "another")] if key == "settings" else []
        assert [item for item in found if item[0] == "base"] == bases


def test_the_smallest_difference_is_one_rate_and_one_row(workspace: Path, tmp_path: Path) -> None:
    Made(tmp_path / "other", rates={"math": 0.004}, rows={"safety": "another row"})
    found = diff(why.resolve(MERGED, Path()), why.resolve(str(tmp_path / "other" / MERGED), Path()))
    assert [(d.kind, d.name) for d in found] == [
        ("parameter", "tasks.math.training.learning_rate"),
        ("data", "data/safety/train.jsonl, one row"),
    ]
    assert (found[0].first, found[0].second) == ("0.002", "0.004")
    assert found[1].first == "line 1: 'safety train 0' = 'yes'"
    assert found[1].second == "line 1: 'another row' = 'yes'"
    same = diff(why.resolve(MERGED, Path()), why.resolve(MERGED, Path()))
    assert same == []


def test_a_difference_is_found_between_commits(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.email=a@example.org", "-c", "user.name=A"]
        subprocess.run(["git", *who, *arguments], cwd=workspace, check=True, capture_output=True)

    (workspace / ".gitignore").write_text("/data\n/artifacts\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    Made(workspace, rates={"math": 0.004})
    git("commit", "-qam", "second")
    assert main(["diff", f"{MERGED}@HEAD~1", MERGED]) == 0
    shown = capsys.readouterr().out
    assert shown == ("parameter tasks.math.training.learning_rate: 0.002 -> 0.004\n")
    assert main(["diff", "HEAD~1", "HEAD"]) == 0
    assert capsys.readouterr().out == shown
    assert main(["diff", "HEAD", "HEAD"]) == 0
    assert capsys.readouterr().out == "no input differs\n"
    assert main(["restore", f"{MERGED}@HEAD~1", str(workspace / "old")]) == 0
    before = why.lineage_of(why.resolve(f"{MERGED}@HEAD~1", Path()))
    assert before.nodes[MERGED].presence == "cache"
    assert not before.nodes[MERGED].here
    assert refused(capsys, "why", f"{MERGED}@HEAD~9") == (
        f"error: {MERGED}@HEAD~9: git knows no commit 'HEAD~9' here"
    )


def test_git_that_fails_is_named_where_a_commit_may_be_meant_and_nowhere_else(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / ".git").mkdir()
    damaged = f"{workspace}: git fails: not a git repository (or any of the parent directories)"
    assert refused(capsys, "why", f"{MERGED}@HEAD").startswith(f"error: {damaged}")
    line = refused(capsys, "why", "merge@concta")
    assert line.startswith("error: merge@concta: here has no such artifact; did you mean 'merge@")
    assert f"; if a commit was meant: {damaged}" in line
    assert main(["why", MERGED, "--no-remote"]) == 0
    assert main(["why", "merge@concat", "--no-remote"]) == 0


def test_why_no_commit_is_known_is_said(workspace: Path) -> None:
    made = {"time": "T", "user": "u", "host": "h"}
    said = {
        "no commit (no commit yet)": {"no_commit": "no commit yet"},
        "an unknown commit (git refuses)": {"git": "git refuses"},
        "a commit that was not recorded": {},
        "c0ffee with changes": {"commit": "c0ffee", "changed": True},
    }
    for text, facts in said.items():
        assert lineage_text._run(made | facts) == f"made T by u@h at {text}"


def test_a_machine_without_the_precision_asked_for_is_no_damage_but_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Made(tmp_path / "here", dtype="bfloat16", computed="float32")
    Made(tmp_path / "there", dtype="bfloat16")
    here, there = (why.resolve(MERGED, tmp_path / name) for name in ("here", "there"))
    assert verify(why.lineage_of(here)) == []
    assert [str(d) for d in diff(here, there)] == ["precision computed in: float32 -> bfloat16"]
    Made(tmp_path / "here", dtype="float32", computed="bfloat16")
    (problem, _) = verify(why.lineage_of(why.resolve(MERGED, tmp_path / "here")))
    assert "model.dtype is recorded as 'float32', but artifacts/math/calibrated" in problem.text


def test_a_source_of_test_items_alone_is_not_named_as_training_data(workspace: Path) -> None:
    path = workspace / "data/manifest.json"
    manifest = json.loads(path.read_text())
    for split, gives in (("train", ["train"]), ("test", ["test"])):
        source = {"kind": "bundled", "name": split, "license": "MIT", "gives": gives}
        manifest["tasks"]["math"]["sources"].append(source)
    path.write_text(json.dumps(manifest))
    pin(workspace)
    lineage = why.lineage_of(why.resolve(MERGED, Path()))
    found = lineage.nodes["data/math/train.jsonl"].facts["sources"]
    assert [text.split()[1] for text in found] == ["org/math", "train"]


def test_two_tasks_adapters_differ_in_what_they_were_given(workspace: Path) -> None:
    found = diff(
        why.resolve("artifacts/math/adapter", Path()),
        why.resolve("artifacts/safety/adapter", Path()),
    )
    assert {d.kind for d in found} <= {"data", "artifact", "source", "parameter"}
    assert any("data/math/train.jsonl" in d.name for d in found)


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ({"math": 0.01, "safety": 0.01}, []),
        ({"math": 0.002}, []),
        ({"math": 0.01}, [("tasks.math.training.learning_rate", "0.01", "0.002")]),
        (
            {"math": 0.01, "safety": 0.02},
            [
                (
                    "tasks.math.training.learning_rate, tasks.safety.training.learning_rate",
                    "0.01",
                    "0.02",
                )
            ],
        ),
    ],
)
def test_what_holds_for_each_of_two_tasks_is_compared(
    tmp_path: Path, rates: dict[str, float], found: list[tuple[str, str, str]]
) -> None:
    Made(tmp_path, rates=rates)
    sides = (
        why.resolve(str(tmp_path / "artifacts" / task / "adapter"), Path())
        for task in ("math", "safety")
    )
    differences = [d for d in diff(*sides) if d.kind == "parameter"]
    assert [(d.name, d.first, d.second) for d in differences] == found


def test_a_parameter_that_is_overridden_on_both_sides_is_no_difference(
    workspace: Path, tmp_path: Path
) -> None:
    for folder, usual in ((workspace, 0.002), (tmp_path / "other", 0.003)):
        Made(folder, rates={"math": 0.01})
        lock = yaml.safe_load((folder / "dvc.lock").read_text())
        lock["stages"]["train@math"]["params"]["params.yaml"]["training"]["learning_rate"] = usual
        (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    nodes = (
        why.lineage_of(why.resolve(f"{folder}/artifacts/math/adapter", Path()), remote=False)
        for folder in (workspace, tmp_path / "other")
    )
    assert [*parameters.differing(*(n.nodes["artifacts/math/adapter"] for n in nodes))] == []


def test_a_hundred_artifacts_take_less_than_three_seconds(tmp_path: Path) -> None:
    tasks = tuple(f"task{number}" for number in range(33))
    Made(tmp_path / "many", tasks=tasks)
    code = (
        "import time; started = time.monotonic()\n"
        "from lori_cli import main\n"
        f"assert main(['why', {MERGED!r}, '--json']) == 0\n"
        "import sys\n"
        "assert 'mlflow' not in sys.modules and 'torch' not in sys.modules\n"
        "print(time.monotonic() - started, file=sys.stderr)"
    )
    import sys

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "many", capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    nodes = json.loads(result.stdout)["nodes"]
    assert len(nodes) == 1 + 4 * 33
    assert float(result.stderr.strip().splitlines()[-1]) < 3


def test_who_made_it_is_read_from_the_rows(workspace: Path) -> None:
    lineage = why.lineage_of(why.resolve("artifacts/math/adapter", Path()))
    md5 = lineage.nodes["artifacts/math/adapter"].entry.md5
    rows = workspace / ".lori/rows/train@math/20260101T000000Z-abc.jsonl"
    rows.parent.mkdir(parents=True)
    start = {
        "type": "start",
        "time": 0.0,
        "stage": "train@math",
        "where": {"host": "h", "user": "u"},
    }
    tags = {"type": "tags", "time": 9.0, "values": {"dvc.outs": f"artifacts/math/adapter={md5}"}}
    end = {"type": "end", "time": 8.0}
    rows.write_text("".join(json.dumps(row) + "\n" for row in (start, end, tags)))
    said = {"run_id": "r1", "tags": {"mlflow.source.git.commit": "c0ffee", "git.changed": "true"}}
    rows.with_name(rows.name + ".shipped").write_text(json.dumps(said))
    made = provenance.runs(workspace)[f"artifacts/math/adapter={md5}"]
    assert made == {
        "stage": "train@math",
        "time": "1970-01-01T00:00:00Z",
        "host": "h",
        "user": "u",
        "commit": "c0ffee",
        "changed": True,
        "seconds": 8.0,
        "run": "r1",
    }


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(b"abcdef", b"abXdeY", (2, 5)), (b"abc", b"abcde", (3, 4)), (b"same", b"same", (-1, -1))],
)
def test_the_range_of_bytes_that_differ(
    tmp_path: Path, first: bytes, second: bytes, expected: tuple[int, int]
) -> None:
    (tmp_path / "a").write_bytes(first)
    (tmp_path / "b").write_bytes(second)
    assert differing_bytes(tmp_path / "a", tmp_path / "b") == expected
