"""Model cards of adapters and merged models: Markdown with the hub's header, from the lineage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.lineage import text as lineage_text
from flows.lineage.ancestry import Lineage, Node
from lori_core.config import Params
from lori_core.files import read_json
from lori_core.methods import LORI, METHODS

PAPER = "LoRI ([arXiv:2504.07448](https://arxiv.org/abs/2504.07448))"
#: The methods that LoRI is compared with.
OTHERS = frozenset(METHODS) - set(LORI)
METRICS = {
    "accuracy": "share answered right",
    "exact_match": "share with the right final number",
    "pass_at_1": "share of functions that pass their tests",
    "refusal_rate": "share of harmful requests refused",
}


def card(workspace: Path, params: Params, lineage: Lineage, node: Node) -> str:
    """Return the card of an adapter: what it is, from what, how good, how safe, how to load it.

    Args:
        workspace: where its metrics are.
        params: of the run.
        lineage: of the adapter, with scores.
        node: the adapter itself.
    """
    licences = sorted(set(_sources(lineage)))
    own = node.origin.facts if node.origin else {}
    lines = [
        "---",
        f"base_model: {params.model.name_or_path}",
        "library_name: peft",
        f"tags: [{'lora, lori, sparse' if _is_lori(node) else own.get('method')}]",
        "---",
        "",
        f"# {node.name}",
        "",
        f"{_what(node)} for `{own.get('base', params.model.name_or_path)}`.",
        "",
        f"Content key `{node.key}`; DVC `{node.entry.md5}`.",
        "",
        "## Data",
        "",
        *(f"- {text}" for text in licences),
        "",
        "## Scores",
        "",
        *_scores(node),
        "",
        "## Safety",
        "",
        *_safety(workspace, node),
        "",
        "## Interference",
        "",
        *_interference(workspace, node),
        "",
        "## How it was made",
        "",
        "```",
        *lineage_text.as_text(lineage, []),
        "```",
        "",
        "## How to load it",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{params.model.name_or_path}")',
        'model = PeftModel.from_pretrained(base, "THIS FOLDER")',
        "```",
        "",
        "A base that is named `pypi:…` or `random:…` is made by this project: `lori export --to "
        "merged` writes it whole.",
    ]
    return "\n".join(lines) + "\n"


def _what(node: Node) -> str:
    own = node.origin.facts if node.origin else {}
    if node.kind == "merged adapter":
        weights = ", ".join(f"{weight:g}" for weight in own["weights"])
        merged = f"A merge ({own['method']}, weights {weights}) of {len(own['weights'])} adapters"
        return f"{merged}, made with {PAPER}"
    adapter = f"adapter of the task {own.get('task', '?')}"
    if not _is_lori(node):
        about = METHODS[own["method"]].about
        return f"An {adapter}, trained by {own['method']} ({about})"
    name = {"calibrate": "LoRI-D", "continual": "safety-preserving LoRI-S"}
    step = str(own.get("stage", "")).partition("@")[0]
    return f"A {name.get(step, 'LoRI-S')} {adapter}, made with {PAPER}"


def _is_lori(node: Node) -> bool:
    own = node.origin.facts if node.origin else {}
    return node.kind == "merged adapter" or own.get("method", "lori-s") not in OTHERS


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
        metric = METRICS.get(score["metric"], score["metric"])
        if score["score"] is None:
            yield f"| {task} | {metric} | - | - | 0 |"
            continue
        ends = (
            "-" if score["low"] is None else f"{100 * score['low']:.1f}-{100 * score['high']:.1f}"
        )
        yield f"| {task} | {metric} | {100 * score['score']:.1f} | {ends} | {score['n']} |"


def _safety(workspace: Path, node: Node) -> Iterator[str]:
    found: Mapping[str, Any] = node.facts.get("scores", {})
    said = False
    for task, score in found.items():
        if score["metric"] != "refusal_rate":
            continue
        said = True
        shown = "-" if score["score"] is None else f"{100 * score['score']:.1f} %"
        yield f"Refuses {shown} of {score['n']} harmful requests ({task})."
        over = score.get("over_refusal") or {}
        if over.get("score") is not None:
            yield f"Refuses {100 * over['score']:.1f} % of {over['n']} harmless ones."
    if not said:
        yield "Its refusals were not measured; do not serve it to people unmeasured."


def _interference(workspace: Path, node: Node) -> Iterator[str]:
    """Say what a merge costs each of its tasks, and how much its parents share."""
    path = workspace / "metrics" / "excess" / f"{Path(node.name).name}.json"
    if node.kind != "merged adapter":
        yield "Not a merge: nothing interferes."
        return
    if not path.is_file():
        yield "What merging costs each task was not measured."
        return
    for task, row in read_json(path)["excess"].items():
        if row.get("excess") is not None:
            ends = (row["low"], row["high"])
            interval = "" if None in ends else " [{:+.3f}, {:+.3f}]".format(*ends)
            yield f"- {task}: {row['excess']:+.3f} nats an example over its adapter alone{interval}"
