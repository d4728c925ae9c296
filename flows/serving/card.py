"""Model cards of adapters and merged models: Markdown with the hub's header, from the lineage."""

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
    """Return the card of what a word names, in the workspace as it stands or in another state.

    `people` as for `card`.

    Raises:
        InputError: it names no adapter.
        DataError: its files, or what was measured of it, are not what was made.
    """
    named = resolve(word, workspace)
    if named.path is None:
        raise InputError(f"{word}: names a whole state; name one adapter of it")
    state = named.state
    if state.here:
        lineage, node = verified(named, "have a card")
        params = params_file.load(state.workspace / PARAMS)
    else:
        lineage = lineage_of(named, remote=False)
        refuse(lineage.doubts, f"{named.path} cannot have a card: not what was made")
        node = lineage.nodes[named.path]
        params = _params_of(state)
    check_adapter(node, "have a card")
    check_settings(lineage, params, "have a card")
    return card(params, lineage, node, people=people)


def _params_of(state: Snapshot) -> Params:
    where = f"{state.label}: {PARAMS}"
    content = state.read(PARAMS)
    if content is None:
        raise ConfigError(f"{where}: is not there, so the base is not known")
    return parse(params_file.read_values(content, where), where)


def card(params: Params, lineage: Lineage, node: Node, *, people: bool = False) -> str:
    """Return the card of an adapter: what it is, from what, how good, how safe, how to load it.

    Args:
        params: of the run.
        lineage: of the adapter, with scores.
        node: the adapter itself.
        people: whether to name who made each part, on which machine (`user@host`).
    """
    licences = sorted(set(_sources(lineage)))
    own = node.origin.facts if node.origin else {}
    # The adapter's own: params.yaml may name another by now.
    base = own.get("base_identity", {}).get("name") or params.model.name_or_path
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
        *_scores(node),
        "",
        "## Safety",
        "",
        *_safety(node),
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
        "A base that is named `pypi:…` or `random:…` is made by this project: `lori export --to "
        "merged` writes it whole.",
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
    own = node.origin.facts if node.origin else {}
    if node.kind == "merged adapter":
        weights = ", ".join(f"{weight:g}" for weight in own["weights"])
        how = f"{escaping.plain(own['method'])}, weights {weights}"
        return f"A merge ({how}) of {len(own['weights'])} adapters, made with {PAPER}"
    adapter = f"adapter of the task {escaping.plain(own.get('task', '?'))}"
    if not _is_lori(node):
        known = METHODS.get(own["method"])  # None for an extension's that is not loaded here
        about = f" ({known.about})" if known else ""
        return f"An {adapter}, trained by {escaping.plain(own['method'])}{about}"
    name = {"calibrate": "LoRI-D", "continual": "safety-preserving LoRI-S"}
    step = str(own.get("stage", "")).partition("@")[0]
    return f"A {name.get(step, 'LoRI-S')} {adapter}, made with {PAPER}"


def _is_lori(node: Node) -> bool:
    own = node.origin.facts if node.origin else {}
    known = METHODS.get(own.get("method", "lori-s"))
    return node.kind == "merged adapter" or (known is not None and known.family == Lori.family)


def _sources(lineage: Lineage) -> Iterator[str]:
    for node in lineage.nodes.values():
        for source in node.facts.get("sources", ()):
            yield f"{node.name}: {source}"


def _scores(node: Node) -> Iterator[str]:
    found: Mapping[str, Any] = node.facts.get("scores", {})
    if not found:
        yield "It was not evaluated."
        return
    yield "| task | metric | score, % | 95 % interval | examples |"
    yield "| --- | --- | --- | --- | --- |"
    for task, score in found.items():
        metric = meaning_of(score["metric"]) or escaping.plain(score["metric"])
        task = escaping.plain(task)
        if score["score"] is None:
            yield f"| {task} | {metric} | - | - | 0 |"
            continue
        ends = (
            "-" if score["low"] is None else f"{100 * score['low']:.1f}-{100 * score['high']:.1f}"
        )
        yield f"| {task} | {metric} | {100 * score['score']:.1f} | {ends} | {score['n']} |"


def _safety(node: Node) -> Iterator[str]:
    found: Mapping[str, Any] = node.facts.get("scores", {})
    said = False
    for task, score in found.items():
        if score["metric"] != "refusal_rate":
            continue
        said = True
        shown = "-" if score["score"] is None else f"{100 * score['score']:.1f} %"
        yield f"Refuses {shown} of {score['n']} harmful requests ({escaping.plain(task)})."
        over = score.get("over_refusal") or {}
        if over.get("score") is not None:
            yield f"Refuses {100 * over['score']:.1f} % of {over['n']} harmless ones."
        broken = score.get("incoherent") or {}
        if broken.get("score"):
            yield f"Says nothing coherent to {100 * broken['score']:.1f} % of {broken['n']}."
    if not said:
        yield "Its refusals were not measured; do not serve it to people unmeasured."


def _interference(lineage: Lineage, node: Node) -> Iterator[str]:
    """Say what a merge costs each of its tasks, and how much its parents share."""
    if node.kind != "merged adapter":
        yield "Not a merge: nothing interferes."
        return
    state = lineage.snapshot
    stages = measured.measuring(state, node.name, node.entry.md5)
    stage = next((s for s in stages if s.name.partition("@")[0] == measured.EXCESS), None)
    said = measured.read_metrics(state, stage) if stage else None
    if said is None:
        yield "What merging costs each task was not measured."
        return
    for task, row in said["excess"].items():
        if row.get("excess") is not None:
            ends = (row["low"], row["high"])
            interval = "" if None in ends else " [{:+.3f}, {:+.3f}]".format(*ends)
            cost = f"{row['excess']:+.3f} nats an example over its adapter alone{interval}"
            yield f"- {escaping.plain(task)}: {cost}"
