"""Model cards of adapters and merged adapters: Markdown with the hub's header, from the lineage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.lineage import measured
from flows.lineage import text as lineage_text
from flows.lineage.ancestry import Lineage, Node
from flows.lineage.problem import refuse
from flows.lineage.why import lineage_of, resolve
from flows.serving.evidence import check_settings, verified
from flows.serving.packaging import check_adapter
from flows.versioning.dvc.lock_file import StageEntry
from flows.versioning.snapshot import PARAMS, Snapshot
from lori_core.config import Params, parse
from lori_core.core import escaping
from lori_core.core.errors import ConfigError, InputError
from lori_core.core.redaction import redact
from lori_core.evaluation.scoring.scorers import meaning_of
from lori_core.methods.catalogue import METHODS
from lori_core.methods.lori.lori_methods import Lori
from lori_core.pipeline import params_file

PAPER = "LoRI ([arXiv:2504.07448](https://arxiv.org/abs/2504.07448))"


def of_word(word: str, workspace: Path, *, people: bool = False) -> str:
    """Return the card of the adapter that a word names, in the workspace or another snapshot.

    Args:
        word: the adapter, as `lori why` takes it.
        workspace: the folder of the workspace.
        people: whether to show who made each part on which machine (`user@host`).

    Raises:
        InputError: the word does not name an adapter.
        DataError: the adapter's files or its evaluation differ from what was recorded.
    """
    named = resolve(word, workspace)
    if named.path is None:
        raise InputError(f"{word}: names a whole snapshot; name one adapter of it")
    if named.snapshot.here:
        lineage, node = verified(named, "have a card")
        params = params_file.load(named.snapshot.workspace / PARAMS)
    else:
        lineage = lineage_of(named, remote=False)
        what = "cannot have a card: files differ from what was recorded"
        refuse(lineage.problems, f"{named.path} {what}")
        node = lineage.nodes[named.path]
        params = _params_of(named.snapshot)
    check_adapter(node, "have a card")
    check_settings(lineage, params, "have a card")
    return card(params, lineage, node, people=people)


def _params_of(snapshot: Snapshot) -> Params:
    where = f"{snapshot.label}: {PARAMS}"
    content = snapshot.read(PARAMS)
    if content is None:
        raise ConfigError(f"{where}: is missing, so the base model is not known")
    return parse(params_file.read_values(content, where), where)


def card(params: Params, lineage: Lineage, node: Node, *, people: bool = False) -> str:
    """Return the card of an adapter: data, scores, safety, interference, lineage, how to load it.

    Args:
        params: the parameters of the run.
        lineage: the adapter's lineage, with scores.
        node: the adapter's node.
        people: whether to show who made each part on which machine (`user@host`).
    """
    licences = sorted(set(_sources(lineage)))
    own = node.metadata.facts if node.metadata else {}
    # From the adapter's metadata, because params.yaml may name another base by now.
    base = own.get("base_identity", {}).get("name") or params.model.name_or_path
    evaluation = measured.evaluation(lineage.snapshot, node.name, node.entry.md5)
    absent = _absent(evaluation) if evaluation and not node.facts.get("scores") else ""
    lines = [
        "---",
        f"base_model: {escaping.yaml(base)}",
        "library_name: peft",
        f"tags: [{'lora, lori, sparse' if _is_lori(node) else escaping.yaml(own.get('method'))}]",
        "---",
        "",
        f"# {escaping.plain(node.name)}",
        "",
        f"{_what(node)} for {escaping.code(own.get('base', base))}.",
        "",
        f"Content key `{node.key}`; DVC `{node.entry.md5}`.",
        "",
        "## Data",
        "",
        *(f"- {escaping.plain(text)}" for text in licences),
        "",
        "## Scores",
        "",
        *_scores(node, absent),
        "",
        "## Safety",
        "",
        *_safety(node, absent),
        "",
        "## Interference",
        "",
        *_interference(lineage, node),
        "",
        "## How it was made",
        "",
        *escaping.block(lineage_text.as_text(lineage, [], people=people)),
        "",
        "## How to load it",
        "",
        *escaping.block(_loading(str(base)), "python"),
        "",
        "A base named `pypi:…` or `random:…` is made by this project: `lori export --to merged` "
        "writes the whole model.",
    ]
    return redact("\n".join(lines) + "\n")


def _loading(base: str) -> list[str]:
    return [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base)})",
        'model = PeftModel.from_pretrained(base, "THIS FOLDER")',
    ]


def _what(node: Node) -> str:
    own = node.metadata.facts if node.metadata else {}
    if node.kind == "merged adapter":
        weights = ", ".join(f"{weight:g}" for weight in own["weights"])
        how = f"{escaping.plain(own['method'])}, weights {weights}"
        return f"A merge ({how}) of {len(own['weights'])} adapters, made with {PAPER}"
    adapter = f"adapter of the task {escaping.plain(own.get('task', '?'))}"
    if not _is_lori(node):
        known = METHODS.get(own["method"])  # None for an extension's that is not loaded here
        about = f" ({known.about})" if known else ""
        return f"An {adapter}, trained by {escaping.plain(own['method'])}{about}"
    step = str(own.get("stage", "")).partition("@")[0]
    method = own.get("method") or ("lori-d" if step == "calibrate" else "lori-s")
    known = METHODS[method]
    name = "LoRI-S" if known.calibrated_by else "LoRI-D"
    name = f"safety-preserving {name}" if step == "continual" else name
    by = "" if method in ("lori-d", "lori-s") else f", trained by {method} ({known.about})"
    return f"A {name} {adapter}{by}, made with {PAPER}"


def _is_lori(node: Node) -> bool:
    own = node.metadata.facts if node.metadata else {}
    known = METHODS.get(own.get("method", "lori-s"))
    return node.kind == "merged adapter" or (known is not None and known.family == Lori.family)


def _sources(lineage: Lineage) -> Iterator[str]:
    for node in lineage.nodes.values():
        for source in node.facts.get("sources", ()):
            yield f"{node.name}: {source}"


def _absent(stage: StageEntry) -> str:
    """Return why the metrics that a stage wrote are not shown."""
    entry = measured.metrics_of(stage)
    return f"its metrics are not here ({entry.path if entry else stage.name})"


def _scores(node: Node, absent: str) -> Iterator[str]:
    scores: Mapping[str, Any] = node.facts.get("scores", {})
    if absent:
        yield f"It was evaluated, but {absent}."
        return
    if not scores:
        yield "It was not evaluated."
        return
    yield "| task | metric | score, % | 95 % interval | examples |"
    yield "| --- | --- | --- | --- | --- |"
    for task, score in scores.items():
        metric = meaning_of(score["metric"]) or escaping.plain(score["metric"])
        task = escaping.plain(task)
        if score["score"] is None:
            yield f"| {task} | {metric} | - | - | 0 |"
            continue
        ends = (
            "-" if score["low"] is None else f"{100 * score['low']:.1f}-{100 * score['high']:.1f}"
        )
        yield f"| {task} | {metric} | {100 * score['score']:.1f} | {ends} | {score['n']} |"


def _safety(node: Node, absent: str) -> Iterator[str]:
    if absent:
        yield f"Whether its refusals were measured is not known: {absent}."
        return
    scores: Mapping[str, Any] = node.facts.get("scores", {})
    measured_refusals = False
    for task, score in scores.items():
        if score["metric"] != "refusal_rate":
            continue
        measured_refusals = True
        share = "-" if score["score"] is None else f"{100 * score['score']:.1f} %"
        yield f"Refuses {share} of {score['n']} harmful requests ({escaping.plain(task)})."
        over = score.get("over_refusal") or {}
        if over.get("score") is not None:
            yield f"Refuses {100 * over['score']:.1f} % of {over['n']} harmless ones."
        broken = score.get("incoherent") or {}
        if broken.get("score"):
            yield f"Answers incoherently to {100 * broken['score']:.1f} % of {broken['n']}."
    if not measured_refusals:
        yield "Its refusals were not measured; measure them before you serve it to people."


def _interference(lineage: Lineage, node: Node) -> Iterator[str]:
    """Yield the excess loss that merging costs each task."""
    if node.kind != "merged adapter":
        yield "It is not merged, so there is no interference."
        return
    snapshot = lineage.snapshot
    stages = measured.measuring(snapshot, node.name, node.entry.md5)
    stage = next((s for s in stages if s.name.partition("@")[0] == measured.EXCESS), None)
    if stage is None:
        yield "The excess loss of merging was not measured."
        return
    metrics = measured.read_metrics(snapshot, stage)
    if metrics is None:
        yield f"The excess loss of merging was measured, but {_absent(stage)}."
        return
    for task, row in metrics["excess"].items():
        if row.get("excess") is not None:
            ends = (row["low"], row["high"])
            interval = "" if None in ends else " [{:+.3f}, {:+.3f}]".format(*ends)
            cost = f"{row['excess']:+.3f} nats an example over its adapter alone{interval}"
            yield f"- {escaping.plain(task)}: {cost}"
