"""Passwords and tokens: refused where they would be kept, and in nothing that leaves a run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from made import Made

from flows.parameters import Override
from flows.tracking.mlflow_store import store_of
from lori_cli import main
from lori_core.core.errors import InputError
from lori_core.pipeline import params_file
from support import refused

ROOT = Path(__file__).parents[2]
PASSWORD, TOKEN, LISTED = "hunter2-the-password", "hf_" + "Ab1" * 12, "a-token-without-a-form"
URL = f"https://u:{PASSWORD}@tracking.example"
SECRETS = (PASSWORD, TOKEN, LISTED)
MERGED = "artifacts/merged/concat"


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_URL", URL)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("MY_API_KEY", LISTED)


def holding(folder: Path, *passed_over: str) -> list[str]:
    """Return the files below a folder in which a secret stands."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in passed_over
        and any(secret.encode() in path.read_bytes() for secret in SECRETS)
    ]


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("tracking.uri", URL, "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("tracking.uri", f"postgresql://u:{PASSWORD}@db/mlflow", "PGPASSWORD"),
        ("tracking.uri", f"https://{TOKEN}@host", "MLFLOW_TRACKING_TOKEN"),
        ("tracking.uri", f"https://host/?token={PASSWORD}", "MLFLOW_TRACKING_TOKEN"),
        ("evaluation.judge.url", URL, "LORI_JUDGE_TOKEN"),
        ("storage.remote", f"ssh://u:{PASSWORD}@host/path", "dvc remote modify --local"),
        ("execution.ray_address", f"ray://u:{PASSWORD}@head:10001", "RAY_AUTH_TOKEN"),
        ("tasks.math.source", f"{{kind: hub, name: '{URL}/set'}}", "HF_TOKEN"),
        ("model.name_or_path", f"{URL}/model", "HF_TOKEN"),
        ("prompt.system", TOKEN, "environment variable"),
        ("tracking.uri", f"[{URL}]", "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_a_secret_in_the_parameters_is_refused_without_telling_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
    value: str,
    instead: str,
) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "profiles" / "smoke.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, "run", "--set", f"{key}={value}")
    assert line.startswith(f"error: params.yaml: {key}")
    assert "holds a password or token" in line
    assert instead in line
    assert holding(tmp_path) == []
    assert not any(secret in line for secret in SECRETS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("storage.remote", "ssh://git@host/path"),
        ("tracking.uri", "postgresql://lori@db:5432/mlflow"),
        ("tracking.uri", "http://127.0.0.1:5000"),
    ],
)
def test_an_address_without_a_secret_is_taken(tmp_path: Path, key: str, value: str) -> None:
    shutil.copy(ROOT / "profiles" / "smoke.yaml", tmp_path / "params.yaml")
    params, _ = params_file.changed(tmp_path / "params.yaml", None, [f"{key}={value}"])
    section, name = key.split(".")
    assert getattr(getattr(params, section), name) == value


def test_a_password_in_the_environments_address_is_refused_by_every_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URL)
    with pytest.raises(InputError, match=r"^MLFLOW_TRACKING_URI: holds a password"):
        store_of(folder)
    for argv in (["run"], ["pull"], ["gate"], ["register", MERGED], ["rollback"]):
        line = refused(capsys, *argv)
        assert line.startswith("error: MLFLOW_TRACKING_URI: holds a password or token; take it out")
        assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in line
        assert PASSWORD not in line
    assert main(["doctor"]) == 1
    assert PASSWORD not in capsys.readouterr().out
    assert holding(folder) == []


SECRET_QUERIES = [
    "?token=x", "?api_key=x", "?a=1&apiKey=x", "#access_token=x", "?hf_token=x", "?Private-Token=x",
    "?t%6fken=x", "?X-Api-Key=x", "?sig=x", ";jwt=x", "?token[]=x", "?client_secret=x", "?TOKEN=x",
    "?subscription-key=x", "?db.password=x",
]  # fmt: skip


@pytest.mark.parametrize("query", SECRET_QUERIES)
def test_a_secret_parameter_of_a_query_is_refused_in_params(query: str) -> None:
    from lori_core.core.redaction import keys_with_secrets, redact

    values = {"tracking": {"uri": f"https://h/x{query}"}}
    assert list(keys_with_secrets(values)) == ["tracking.uri"]
    if "%" not in query:
        assert redact(f"see https://h/x{query.replace('=x', '=hunter2')} now") == (
            f"see https://h/x{query.replace('=x', '=***')} now"
        )


def test_a_server_refuses_an_override_with_a_password_before_it_keeps_it() -> None:
    import re

    from pydantic import TypeAdapter, ValidationError

    pattern = TypeAdapter(Override).json_schema()["pattern"]
    refused = [URL, f"postgresql://u:{PASSWORD}@db/m", f"https://{TOKEN}:@h", "a://u:p/q@h", TOKEN]
    refused += [f"https://h/x{query}" for query in SECRET_QUERIES]
    adapter: TypeAdapter[str] = TypeAdapter(Override)
    for value in refused:
        assert not re.search(pattern, f"tracking.uri={value}"), value
        with pytest.raises(ValidationError, match="without a password or token"):
            adapter.validate_python(f"tracking.uri={value}")
    for value in ("ssh://git@host/x", "16", "http://h:5000", "me@x", "a: b@c", "s3://b/k?x=1", "",
                  "https://h/x?tokens=5&page=2", "?monkey=1"):  # fmt: skip
        assert re.search(pattern, f"storage.remote={value}"), value
        assert adapter.validate_python(f"storage.remote={value}")


SAID = 'os.environ["A_URL"], os.environ["HF_TOKEN"], os.environ["MY_API_KEY"]'


def tell_secrets(workspace: Path) -> None:
    """Have the toy's stages print their secrets, report them as a tag, and `train@nlu` fail."""
    toy = workspace / "toy.py"
    text = toy.read_text().replace('"works"', f'"works", {SAID}')
    text = text.replace("does not like it", "does not like {os.environ['A_URL']}")
    # Rows are written by the tracker, as real stages do it.
    text = text.replace(
        '    with rows.open("a") as file:\n',
        "    from lori_core.core.tracking import FileTracker\n"
        "    FileTracker(rows)._write(kind, **fields)\n"
        "    return\n"
        '    with rows.open("a") as file:\n',
    )
    text = text.replace(
        'row("start"', f'row("tags", values={{"said": " ".join([{SAID}])}})\nrow("start"', 1
    )
    toy.write_text(text)
    (workspace / "fail-train@nlu").write_text("1")


def test_a_stages_lines_rows_and_failure_hold_no_secret(toy: Path, secrets: None) -> None:
    from flows.execution.stage_run import Place, StageFailed

    tell_secrets(toy)
    place = Place(toy, ".lori/rows/pipeline/x.jsonl", {"git.failed": f"at {URL}"})
    lines: list[str] = []
    command = [sys.executable, "toy.py"]
    place.command("prepare", [*command, "prepare", "out/a.json"], "", "id", lines.append)
    assert lines == ["prepare works https://***@tracking.example *** ***"]
    with pytest.raises(StageFailed, match=r"^train@nlu does not like https://\*\*\*@tracking"):
        place.command("train@nlu", [*command, "train@nlu", "out/b.json"], "", "id", lines.append)
    unreported = [sys.executable, "-c", f"import os; raise SystemExit(' '.join([{SAID}]))"]
    with pytest.raises(StageFailed, match=r"^https://\*\*\*@tracking.example \*\*\* \*\*\* \("):
        place.command("other", ["env", *unreported], "", "id", lines.append)
    assert holding(toy) == []


@pytest.mark.real
def test_a_run_leaves_no_secret_anywhere(
    tracked: Path,
    prefect_api: None,
    secrets: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import flows.pipeline as module

    tell_secrets(tracked)
    monkeypatch.setattr("flows.execution.tasks.PULL", ("platform",))
    monkeypatch.setattr(params_file, "apply", lambda *_: [f"now at {URL}"])
    monkeypatch.setattr(module, "RETRY_DELAY_SECONDS", 0)
    state = module.pipeline(return_state=True)
    assert state.is_failed()
    assert "does not like https://***@tracking.example" in str(state.message)

    kept = _kept_by_prefect()
    printed = capfd.readouterr()
    assert "prepare works https://***@tracking.example *** ***" in kept + printed.out + printed.err
    for where in (kept, printed.out, printed.err, repr(state)):
        assert not [secret for secret in SECRETS if secret in where]
    assert holding(tracked) == []
    database = b"".join(path.read_bytes() for path in tracked.glob("mlflow.db*"))
    assert b"https://***@tracking.example *** ***" in database


def _kept_by_prefect() -> str:
    """Return all that the server has of runs, states and logs."""
    from prefect.client.orchestration import get_client
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=30)
    with get_client(sync_client=True) as client:
        kept = [*client.read_flow_runs(), *client.read_task_runs(), *client.read_logs()]
        return "\n".join(each.model_dump_json() for each in kept)


def test_what_is_registered_holds_no_secret(folder: Path, secrets: None) -> None:
    from flows.tracking.registry import Registry

    source = folder / "model"
    source.mkdir()
    (source / "MLmodel").write_text("flavors: {}\n")
    tags = {"lori.content_key": "key", "said": f"at {URL}"}
    version = Registry(folder).add("m", source, tags, None, about=f"with {TOKEN} and {LISTED}")
    assert version.tags["said"] == "at https://***@tracking.example"
    assert holding(folder) == []


def test_a_parameter_file_that_has_a_secret_by_now_is_kept_without_it(
    folder: Path, secrets: None
) -> None:
    from flows.versioning import snapshot

    Made(folder)
    path = folder / "params.yaml"
    before = path.read_text()
    path.write_text(before + f"tracking: {{uri: '{URL}'}}\n")
    saved = snapshot.save(folder, "a-run")
    assert saved is not None
    assert (saved / "params.yaml").read_text().startswith(before)
    assert "https://***@tracking.example" in (saved / "params.yaml").read_text()
    assert (saved / "dvc.lock").read_bytes() == (folder / "dvc.lock").read_bytes()


def test_rows_are_kept_without_secrets(folder: Path, secrets: None) -> None:
    from flows.tracking import rows
    from lori_core.core.tracking import FileTracker

    path = rows.new_rows_file(folder, "gate")
    values: dict[str, Any] = {"tracking": {"uri": URL}, "list": [TOKEN], "path": Path(f"/{LISTED}")}
    rows.append(path, "params", values=values)
    FileTracker(path).error(f"failed at {URL}", 1)
    rows.Shipment(rows.Shipment.of(path).path, tags={"why": URL}).save()
    assert holding(folder) == []
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first["values"]["tracking"]["uri"] == "https://***@tracking.example"
    assert first["values"]["path"] == "/***"
    assert second["message"] == "failed at https://***@tracking.example"
