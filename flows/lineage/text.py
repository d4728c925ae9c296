"""A lineage as a tree of text, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows.lineage.ancestry import Lineage, Node
from flows.lineage.problem import Problem
from flows.versioning.snapshot import leaves

#: The parameters of a stage that the tree shows.
SHOWN = ("learning_rate", "epochs", "batch_size", "lora_alpha", "loss", "sparsity", "mask_scope")


def as_json(lineage: Lineage, problems: Sequence[Problem]) -> dict[str, Any]:
    """Return the lineage for JSON: nodes by name, each with the names of its inputs."""
    return {
        "targets": list(lineage.targets),
        "state": lineage.snapshot.label,
        "nodes": {name: _node(node) for name, node in lineage.nodes.items()},
        "problems": [{"name": p.name, "text": p.text} for p in problems],
        "remote": lineage.objects.remote_failure or None,
    }


def _node(node: Node) -> dict[str, Any]:
    own = node.metadata
    return {
        "kind": node.kind,
        "content_key": node.key or None,
        "md5": node.entry.md5,
        "size": node.entry.size,
        "here": node.here,
        "presence": node.presence,
        "stage": node.stage.name if node.stage else None,
        "command": node.stage.command if node.stage else None,
        "inputs": node.inputs,
        "parameters": dict(leaves(node.params)),
        "code": node.code,
        "says": dict(own.facts) if own else {},
        **node.facts,
    }


def as_text(lineage: Lineage, problems: Sequence[Problem], *, people: bool = True) -> list[str]:
    """Return the tree's lines; a node that was shown before is only named again.

    Args:
        lineage: the lineage to show.
        problems: its problems.
        people: whether to show who made each part on which machine (`user@host`).
    """
    lines: list[str] = []
    shown: set[str] = set()
    named = [problem.name for problem in problems]
    bad = {
        node
        for node in lineage.nodes
        if any(name == node or name.startswith(f"{node}/") for name in named)
    }
    for target in lineage.targets:
        if target not in shown:
            lines += _tree(lineage, target, shown, bad, people=people)
    return [*lines, *_summary(lineage, problems)]


def _tree(
    lineage: Lineage, name: str, shown: set[str], bad: set[str], *, people: bool
) -> Iterator[str]:
    node = lineage.nodes[name]
    again = name in shown
    shown.add(name)
    yield _title(node, again=again, bad=name in bad)
    if again:
        return
    children = node.inputs
    for line in _facts(node, people=people):
        yield f"{'│ ' if children else '  '}  {line}"
    for place, child in enumerate(children):
        last = place == len(children) - 1
        below = _tree(lineage, child, shown, bad, people=people)
        yield f"{'└─' if last else '├─'} {next(below)}"
        yield from (f"{'   ' if last else '│  '}{line}" for line in below)


def _title(node: Node, *, again: bool, bad: bool) -> str:
    key = f"  key {node.key[:12]}" if node.key else f"  md5 {node.entry.md5[:12]}"
    if again:
        return f"{node.name}{key}  (above)"
    where = ", ".join((["here"] if node.here else []) + [node.presence])
    return f"{node.name}  [{node.kind}]{key}  ({where}){'  CHANGED' if bad else ''}"


def _facts(node: Node, *, people: bool) -> Iterator[str]:
    own = node.metadata
    if own is not None and own.facts.get("base"):
        yield f"base {own.facts['base']}, weights {str(own.facts['base_weights'])[:12]}"
    if own is not None and own.facts.get("projection"):
        yield f"A drawn from {', '.join(own.facts['projection'])}, rank {own.facts['rank']}"
    if own is not None and own.kind in ("adapter", "full model") and own.facts.get("method"):
        yield f"method {own.facts['method']}"
    if own is not None and own.kind == "merged adapter":
        weights = ", ".join(f"{weight:g}" for weight in own.facts["weights"])
        yield f"method {own.facts['method']}, weights {weights}"
    chosen = [f"{n.rpartition('.')[2]} {v}" for n, v in _effective(node) if v is not None]
    if chosen:
        yield ", ".join(chosen)
    yield from node.facts.get("sources", ())
    if node.facts.get("rows") is not None:
        yield f"{node.facts['rows']} rows"
    for task, score in node.facts.get("scores", {}).items():
        yield f"scores {task}: {_score(score)}"
    run = node.facts.get("made")
    if run:
        yield _run(run, people=people)


def _effective(node: Node) -> Iterator[tuple[str, Any]]:
    """Yield the shown parameters with the task's overrides applied."""
    values: dict[str, Any] = {}
    if node.metadata is not None and node.metadata.depends.get("section"):
        section = node.metadata.depends["section"]
        values = {name: section[name] for name in SHOWN if name in section}
    elif node.kind == "mask":
        values = {n.rpartition(".")[2]: v for n, v in leaves(node.params)}
        values = {name: value for name, value in values.items() if name in SHOWN}
    yield from values.items()


def _score(score: Mapping[str, Any]) -> str:
    if score["score"] is None:
        return f"{score['metric']} - (no example counts)"
    ends = ""
    if score["low"] is not None:
        ends = f" [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
    return f"{score['metric']} {100 * score['score']:.1f}{ends} of {score['n']}"


def _run(run: Mapping[str, Any], *, people: bool = True) -> str:
    who = f" by {run.get('user', '?')}@{run.get('host', '?')}" if people else ""
    tools = f", Python {run['python']}, torch {run.get('torch')}" if "python" in run else ""
    tracked = f", MLflow run {run['run'][:8]}" if run.get("run") else ""
    return f"made {run['time']}{who} at {_commit(run, people=people)}{tools}{tracked}"


def _commit(run: Mapping[str, Any], *, people: bool) -> str:
    if "commit" in run:
        return f"{run['commit'][:10]}{' with changes' if run.get('changed') else ''}"
    if not people:  # the reason may name folders of this machine
        return "a commit that was not recorded"
    if "no_commit" in run:
        return f"no commit ({run['no_commit']})"
    if "git" in run:
        return f"an unknown commit ({run['git']})"
    return "a commit that was not recorded"


def _summary(lineage: Lineage, problems: Sequence[Problem]) -> Iterator[str]:
    counts: dict[str, int] = {}
    for node in lineage.nodes.values():
        counts[node.presence] = counts.get(node.presence, 0) + 1
    marks = ", ".join(f"{count} {where}" for where, count in sorted(counts.items()) if where)
    yield ""
    yield f"{len(lineage.nodes)} nodes: {marks}"
    if lineage.objects.remote_failure:
        yield f"the remote could not be reached: {lineage.objects.remote_failure}"
    gone = [node.name for node in lineage.nodes.values() if node.presence == "gone"]
    if gone:
        yield f"gone: {', '.join(gone[:5])}{' …' if len(gone) > 5 else ''}"
    yield from (f"! {problem}" for problem in problems)
