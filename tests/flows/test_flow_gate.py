"""Registering, promoting, refusing, rolling back, with MLflow's own registry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_server import hub
from made import Made
from measured import Measured

from flows.lineage import why
from flows.serving import gate
from flows.tracking.registry import CHAMPION, PREVIOUS, ChampionChangedError, Registry, Version
from lori_cli import main
from lori_core.core.errors import AdapterError, DataError, InputError, LoriError
from lori_core.pipeline import params_file
from support import refused

MERGED = "artifacts/merged/concat"


def gated(folder: Path, **made: Any) -> gate.Outcome:
    """Make a run and let it pass the gate, or not."""
    Made(folder, **made)
    return gate.run_gate(folder, params_file.load(folder / "params.yaml"), send=False)


def plain_version(registry: Registry, folder: Path, number: int) -> Version:
    """Register something small under `m`."""
    source = folder / f"model-{number}"
    source.mkdir()
    (source / "MLmodel").write_text("flavors: {}\n")
    return registry.add("m", source, {"lori.content_key": f"key{number}"}, None)


def aliases(registry: Registry, name: str = "m") -> dict[str, str]:
    found = registry.client.get_registered_model(name).aliases
    return {alias: str(number) for alias, number in found.items()}


def test_first_better_worse_and_rollback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = gated(folder, right={"math": 20})
    assert first.passed
    assert first.promoted
    assert first.replaced is None
    assert first.lines()[-1] == "lori version 1 is champion: the first, there was none before it"
    again = gate.run_gate(folder, params_file.load())
    assert again.lines() == ["lori version 1 is champion already"]

    better = gated(folder, rates={"math": 0.004}, right={"math": 30})
    assert better.lines()[-1] == ("lori version 2 is champion; lori version 1 is kept as previous")
    registry = Registry(folder)
    assert aliases(registry, "lori") == {CHAMPION: "2", PREVIOUS: "1"}

    worse = gated(folder, rates={"math": 0.008}, right={"math": 10})
    assert not worse.passed
    assert [f.rule for f in worse.verdict.failed] == ["not_worse.math"]
    assert worse.lines()[-1] == f"{MERGED} is refused; lori version 2 stays champion"
    assert aliases(registry, "lori") == {CHAMPION: "2", PREVIOUS: "1"}
    said = json.loads((folder / "gate/verdict.json").read_text())
    assert (said["passed"], said["promoted"], said["champion"]) == (False, False, "lori version 2")
    assert said["findings"][0]["flipped"][0]["prompt"] == "math test 10"

    assert main(["gate"]) == 1
    captured = capsys.readouterr()
    assert "is refused by not_worse.math (gate/verdict.md)" in captured.err
    assert "'math test 10'" in captured.out

    assert main(["rollback"]) == 0
    assert (
        "lori version 1 is champion again; lori version 2 is no longer" in capsys.readouterr().out
    )
    assert aliases(registry, "lori") == {CHAMPION: "1"}
    assert "is the first champion" in refused(capsys, "rollback")


def test_a_version_that_was_rolled_back_is_promoted_again_only_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gated(folder, right={"math": 20})
    gated(folder, rates={"math": 0.004}, right={"math": 30})
    assert main(["rollback"]) == 0
    registry = Registry(folder)
    again = gate.run_gate(folder, params_file.load(), send=False)
    assert [finding.rule for finding in again.verdict.failed] == ["rolled_back"]
    assert again.lines()[-2:] == [
        "BROKEN  rolled_back: lori version 2 holds this model, and lori rollback took it back; to "
        f"promote it all the same, name it: lori gate {MERGED}",
        f"{MERGED} is refused; lori version 1 stays champion",
    ]
    assert aliases(registry, "lori") == {CHAMPION: "1"}
    capsys.readouterr()
    assert main(["gate"]) == 1
    assert "is refused by rolled_back (gate/verdict.md)" in capsys.readouterr().err

    assert main(["gate", MERGED]) == 0
    assert aliases(registry, "lori") == {CHAMPION: "2", PREVIOUS: "1"}
    assert "lori.rolled_back" not in registry.version("lori", "2").tags


def test_the_champion_is_judged_again_by_bounds_that_changed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gated(folder, right={"math": 20})
    page = folder / "gate/verdict.md"
    page.write_text("the refusal of another candidate")
    values = params_file.load().model_dump()
    values["gate"]["rules"] = {"score.math": {"at_least": 0.4}}
    kept = gate.run_gate(folder, values, send=False)
    assert kept.lines()[-1] == "lori version 1 is champion already"
    assert [(f.rule, f.passed) for f in kept.verdict.findings] == [("score.math", True)]
    said = "Judged by the bounds alone: it is lori version 1, the champion."
    assert page.read_text().startswith(f"# {MERGED} may be served\n\n{said}\n")

    path = folder / "params.yaml"
    path.write_text(path.read_text() + "  rules: {score.math: {at_least: 0.6}}\n")
    assert main(["gate"]) == 1
    shown = capsys.readouterr()
    assert "is refused by score.math (gate/verdict.md)" in shown.err
    assert (
        f"{MERGED} is refused, but lori version 1 holds it and stays champion; lori rollback "
        "undoes its promotion\n"
    ) in shown.out
    assert f"# {MERGED} is refused" in page.read_text()
    verdict = json.loads((folder / "gate/verdict.json").read_text())
    assert (verdict["passed"], verdict["promoted"]) == (False, False)
    assert verdict["is_champion"]
    assert aliases(Registry(folder), "lori") == {CHAMPION: "1"}


def test_the_verdict_reaches_mlflow_once(folder: Path) -> None:
    from flows.tracking.sending import ship_all

    Made(folder)
    gate.run_gate(folder, params_file.load())
    ship_all(folder)
    registry = Registry(folder)
    runs = registry.client.search_runs([registry.experiment_id()], "tags.`lori.stage` = 'gate'")
    assert len(runs) == 1
    assert runs[0].data.tags["lori.verdict"] == "passed"
    assert runs[0].data.metrics["gate.passed"] == 1.0
    found = {item.path for item in registry.client.list_artifacts(runs[0].info.run_id)}
    assert found == {"gate", "evaluation"}


def test_the_champions_verdicts_come_from_mlflow_where_dvc_has_lost_them(folder: Path) -> None:
    from flows.tracking.sending import ship_all

    gated(folder, right={"math": 30})
    ship_all(folder)
    shutil.rmtree(folder / ".dvc/cache")
    worse = gated(folder, rates={"math": 0.008}, right={"math": 10})
    assert [f.rule for f in worse.verdict.failed] == ["not_worse.math"]


def test_a_champion_without_verdicts_is_said(folder: Path) -> None:
    gated(folder)
    shutil.rmtree(folder / ".dvc/cache")
    with pytest.raises(LoriError, match="lori version 1: its verdicts are gone"):
        gated(folder, rates={"math": 0.008}, right={"math": 31})
    assert aliases(Registry(folder), "lori") == {CHAMPION: "1"}


def test_a_set_up_that_was_not_measured_gives_no_verdict(folder: Path) -> None:
    Made(folder)
    values = params_file.load().model_dump()
    values["evaluation"]["setups"] = {"hot": {"temperature": 1.0}}
    values["gate"] |= {"rules": {"refusal": {"at_least": 0.0}}, "setups": ["hot"]}
    with pytest.raises(DataError, match=r"safety.setup-hot.jsonl: is not here, so nothing was mea"):
        gate.run_gate(folder, values, send=False)
    assert not (folder / "gate").exists()


def test_a_model_that_was_not_evaluated_is_not_judged(folder: Path) -> None:
    Made(folder)
    with pytest.raises(InputError, match="was not evaluated as it is now"):
        gate.run_gate(folder, params_file.load(), "artifacts/math/adapter")


def test_a_registered_adapter_is_small_answers_and_leads_back(folder: Path) -> None:
    import mlflow
    from peft import PeftModel

    from support import tiny

    gated(folder)
    registry = Registry(folder)
    champion = registry.at("lori", CHAMPION)
    assert champion is not None
    assert champion.tags["lori.path"] == MERGED
    stored = folder / "mlruns/models"
    size = sum(path.stat().st_size for path in stored.rglob("*") if path.is_file())
    weights = list(stored.rglob("*.safetensors"))
    assert [path.name for path in weights] == ["adapter_model.safetensors"]
    assert size < weights[0].stat().st_size + 100_000

    model, _, _ = tiny("llama")
    worn = PeftModel.from_pretrained(model, str(weights[0].parent))
    assert any("lora_A" in name for name, _ in worn.named_parameters())

    served = mlflow.pyfunc.load_model(f"models:/lori@{CHAMPION}")
    assert served.metadata.signature.inputs.input_names() == ["prompt"]
    example = served.input_example
    assert len(served.predict([{"prompt": "What is 17 + 25?"}], params={"max_new_tokens": 2})) == 1
    answer = served.predict(example, params={"max_new_tokens": 4})
    assert list(answer.columns) == ["text"]
    assert len(answer) == 1

    named = why.resolve(f"models:/lori@{CHAMPION}", folder)
    back = why.lineage_of(named)
    assert back.nodes[MERGED].key == champion.tags["lori.content_key"]
    assert "data/math/train.jsonl" in back.nodes


def test_unknown_models_and_aliases_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gated(folder)
    assert "did you mean 'lori'?" in refused(capsys, "why", "models:/lory/1")
    assert "did you mean 'champion'?" in refused(capsys, "why", "models:/lori@champoin")
    assert "no such run in MLflow" in refused(capsys, "why", "0" * 32)


def test_a_registry_of_many_models_is_read_whole(folder: Path) -> None:
    registry = Registry(folder)
    for number in range(101):
        registry.client.create_registered_model(f"m{number:03}")
    assert registry.names() == [f"m{number:03}" for number in range(101)]
    with pytest.raises(InputError, match=r"m100: no version or alias '1'"):
        registry.version("m100", "1")


def test_nothing_is_registered_twice(folder: Path) -> None:
    registry = Registry(folder)
    first = plain_version(registry, folder, 1)
    again = registry.add("m", folder / "model-1", {"lori.content_key": "key1"}, None)
    assert again == first


def test_an_alias_never_points_to_something_unfinished(folder: Path) -> None:
    registry = Registry(folder)
    version = plain_version(registry, folder, 1)
    registry.client.delete_model_version_tag("m", version.number, "lori.complete")
    with pytest.raises(LoriError, match="not complete in the registry"):
        registry.promote(version, None)
    assert aliases(registry) == {}


@pytest.mark.parametrize("step", ["set_model_version_tag", "set_registered_model_alias"])
def test_a_promotion_that_dies_anywhere_leaves_one_whole_champion(
    folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(folder)
    first, second, third = (plain_version(registry, folder, n) for n in (1, 2, 3))
    registry.promote(first, None)
    registry.promote(second, first)
    calls = getattr(registry.client, step)

    def dies(*arguments: Any, **named: Any) -> None:
        if PREVIOUS in arguments or "lori.previous" in arguments:
            raise KeyboardInterrupt
        calls(*arguments, **named)

    monkeypatch.setattr(registry.client, step, dies)
    with pytest.raises(KeyboardInterrupt):
        registry.promote(third, second)
    monkeypatch.undo()
    moved = step == "set_registered_model_alias"
    assert aliases(registry)[CHAMPION] == ("3" if moved else "2")
    champion = registry.at("m", CHAMPION)
    assert champion is not None
    registry.promote(champion, champion)
    assert aliases(registry)[PREVIOUS] == ("2" if moved else "1")


def test_a_candidate_that_was_overtaken_is_not_promoted(folder: Path) -> None:
    registry = Registry(folder)
    first, second = plain_version(registry, folder, 1), plain_version(registry, folder, 2)
    registry.promote(first, None)
    with pytest.raises(ChampionChangedError, match="was judged against no champion"):
        registry.promote(second, None)
    assert aliases(registry) == {CHAMPION: "1"}


def test_two_promotions_racing_leave_one_champion(folder: Path) -> None:
    registry = Registry(folder)
    first = plain_version(registry, folder, 1)
    plain_version(registry, folder, 2)
    plain_version(registry, folder, 3)
    registry.promote(first, None)
    code = (
        "import sys; from pathlib import Path; from flows.tracking.registry import *\n"
        "r = Registry(Path()); v = r.version('m', sys.argv[1]); c = r.at('m', 'champion')\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try: r.promote(v, c); print('promoted')\n"
        "except ChampionChangedError: print('overtaken')\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, number],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in ("2", "3")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(said) == ["overtaken", "promoted"]
    winner = ("2", "3")[said.index("promoted")]
    assert aliases(registry) == {CHAMPION: winner, PREVIOUS: "1"}


def test_a_registry_that_refuses_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["gate"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: MLflow at http://127.0.0.1:9 refuses: ")


def test_a_card_says_what_it_is_and_how_to_load_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    assert main(["card", MERGED]) == 0
    page = capsys.readouterr().out
    assert page.startswith("---\nbase_model: random:llama\n")
    assert "A merge (concat, weights 0.5, 0.5) of 2 adapters" in page
    assert "hub org/math" in page
    assert "| math | share with the right final number | 75.0 | 0.0-100.0 | 40 |" in page
    assert "Refuses 75.0 % of 40 harmful requests (safety)." in page
    assert "PeftModel.from_pretrained" in page


def test_a_card_says_what_a_merge_costs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Measured(folder, excess=0.125)
    assert main(["card", MERGED]) == 0
    page = capsys.readouterr().out
    cost = "+0.125 nats an example over its adapter alone"
    assert f"- math: {cost} [+0.000, +1.000]\n- safety: {cost}" in page


def test_a_card_shows_text_from_outside_as_text_and_names_nobody_unasked(folder: Path) -> None:
    from flows.serving import card
    from flows.serving.evidence import artifact_here, verified

    Made(folder)
    lineage, node = verified(artifact_here(MERGED, folder, "have a card"), "have a card")
    evil = "hub x (licence: <script>alert(1)</script> [a](javascript:b)\n```\n# Safe)"
    for each in lineage.nodes.values():
        if each.facts.get("sources"):
            each.facts["sources"] = [evil]  # type: ignore[index]
    made = {
        "time": "2026-01-01T00:00:00Z",
        "user": "alice",
        "host": "box",
        "git": "/home/alice: no",
    }
    node.facts["made"] = made  # type: ignore[index]
    params = params_file.load(folder / "params.yaml")
    page = card.card(params, lineage, node)
    told, _, tree = page.partition("## Scores")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\[a\\](javascript:b) \\`\\`\\` \\# Safe" in told
    assert "<script>" not in told
    assert "\n```\n# Safe" not in tree
    assert "\n````\n" in tree  # the block is fenced with more than the text has
    assert "alice" not in page
    assert "alice@box" in card.card(params, lineage, node, people=True)


def test_models_of_two_workspaces_side_by_side(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder, right={"math": 20})
    Made(tmp_path / "other", right={"math": 30})
    assert main(["compare", MERGED, str(tmp_path / "other" / MERGED)]) == 0
    shown = capsys.readouterr().out
    assert "math (40)" in shown
    assert "75 [59-87]; Δ +25.0 [+8.5, +41.2]*" in shown
    assert "safety, refusals (40)" in shown
    assert "content key" in (folder / "compare/index.html").read_text()
    argv = ["compare", MERGED, str(tmp_path / "other" / MERGED)]
    assert main(argv) == 0
    (folder / "compare/notes.txt").write_text("mine")
    assert "compare: exists and is not an empty folder" in refused(capsys, *argv)
    assert "holds the input" in refused(capsys, *argv, "-o", "artifacts", "--force")
    assert main([*argv, "--force"]) == 0
    assert not (folder / "compare/notes.txt").exists()
    capsys.readouterr()
    assert "a model is named twice" in refused(capsys, "compare", MERGED, MERGED)
    assert "name two models or more" in refused(capsys, "compare", MERGED)
    assert "was not evaluated" in refused(capsys, "compare", MERGED, "artifacts/math/adapter")


def test_what_would_be_sent_to_a_hub_is_a_peft_folder_with_its_card(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    assert main(["push", MERGED, "me/adapter", "--dry-run", "out"]) == 0
    assert {path.name for path in (folder / "out").iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert "nothing was" in capsys.readouterr().out
    argv = ["push", MERGED, "me/adapter", "--dry-run"]
    assert main([*argv, "out"]) == 0
    (folder / "out/notes.txt").write_text("mine")
    capsys.readouterr()
    assert "holds notes.txt" in refused(capsys, *argv, "out")
    assert "is, or lies in, the input" in refused(capsys, *argv, MERGED, "--force")
    line = refused(capsys, "push", "data/math/train.jsonl", "me/adapter", "--dry-run", "other")
    assert "only adapters can be sent" in line


def test_an_adapter_of_another_base_is_neither_sent_nor_served(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    path = folder / "params.yaml"
    path.write_text(path.read_text().replace("random:llama", "random:mistral"))
    push = ["push", MERGED, "me/x", "--dry-run", "out"]
    for argv in (push, ["register", MERGED], ["card", MERGED]):
        line = refused(capsys, *argv)
        assert "params.yaml: model.name_or_path is 'random:mistral', but artifacts/" in line
    from flows.serving.serving_model import LoriModel

    context: Any = SimpleNamespace(
        model_config={"model": {"name_or_path": "random:mistral"}, "prompt": {}},
        artifacts={"adapter": str(folder / MERGED)},
    )
    with pytest.raises(AdapterError, match="the registered adapter: made for the base"):
        LoriModel().load_context(context)


def test_pushing_needs_a_token(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "no token; set HF_TOKEN" in refused(capsys, "push", MERGED, "me/adapter")


def test_what_is_pushed_is_a_peft_folder_with_its_card(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    assert main(["push", MERGED, "me/adapter", "--dry-run", "out"]) == 0
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    with hub(monkeypatch) as running:
        assert main(["push", MERGED, "me/adapter"]) == 0
    assert capsys.readouterr().out.endswith(f"{running.url}/me/adapter/commit/{'a' * 40}\n")
    assert running.repositories["me/adapter"]["visibility"] == "private"
    assert running.files == {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert running.tokens == {"hf_secret"}
    assert not any(b"hf_secret" in content for content in running.files.values())


@pytest.mark.parametrize(
    ("visibility", "options", "line"),
    [
        ("public", [], "is public on the hub, and lori push uploads to a private repository"),
        ("private", ["--public"], "is private on the hub, in spite of --public"),
    ],
)
def test_an_existing_repository_of_another_visibility_gets_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    visibility: str,
    options: list[str],
    line: str,
) -> None:
    Made(folder)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    with hub(monkeypatch) as running:
        running.repositories["me/adapter"] = {"visibility": visibility}
        assert line in refused(capsys, "push", MERGED, "me/adapter", *options)
        assert running.files == {}
        flipped = [] if options else ["--public"]
        assert main(["push", MERGED, "me/adapter", *flipped]) == 0
    assert "README.md" in running.files
    assert running.repositories["me/adapter"] == {"visibility": visibility}


def test_a_hub_that_refuses_or_is_away_is_one_line_without_the_token(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    with hub(monkeypatch) as running:
        running.refusal = 401
        assert main(["push", MERGED, "me/adapter"]) == 1
        refusal = capsys.readouterr()
        assert running.tokens == {"hf_secret"}
    assert main(["push", MERGED, "me/adapter"]) == 1
    away = capsys.readouterr()
    assert refusal.err.startswith("error: me/adapter: the hub refuses: ")
    assert away.err == (
        f"error: me/adapter: {running.url} cannot be reached ([Errno 111] Connection refused); "
        "check the network, a proxy's settings, HF_ENDPOINT and HF_HUB_OFFLINE\n"
    )
    assert "hf_secret" not in refusal.err + refusal.out + away.err + away.out


@pytest.mark.parametrize(
    "argv", [["rollback", "x"], ["why", "models:/x"], ["why", "models:/x@champion"]]
)
def test_reading_a_registry_that_is_not_there_makes_none(
    argv: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mlflow.db").unlink()
    before = sorted(folder.rglob("*"))
    line = refused(capsys, *argv)
    assert line.startswith(f"error: {folder / 'mlflow.db'}: no such file: nothing is recorded or ")
    assert sorted(folder.rglob("*")) == before
