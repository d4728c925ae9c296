"""The gate at the end of a run: judge the candidate against the champion, promote or refuse it.

A promotion moves one alias in MLflow's registry, after the candidate is complete there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.lineage.ancestry import Lineage, Node, primary
from flows.lineage.named import Named
from flows.serving.comparability import check_champion
from flows.serving.evidence import (
    artifact_here,
    champion_files,
    check_settings,
    gather,
    safety_evaluation,
    verified,
)
from flows.serving.serve_dir import update_all
from flows.tracking import registry as reg
from flows.tracking import rows as rows_files
from flows.tracking.registry import ChampionChangedError, Registry, Version
from flows.tracking.rows import Shipment, new_rows_file
from lori_core.config import Params, parse
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import write_json, write_text
from lori_core.core.redaction import redact, redacted
from lori_core.core.tracking import where
from lori_core.evaluation import gate as rules
from lori_core.evaluation.gate_rules import Scored

FOLDER = Path("gate")
#: How often the gate judges, if another candidate is promoted meanwhile.
ATTEMPTS = 3
#: The most characters of a version's description in MLflow.
DESCRIPTION = 5000
#: The events that a gate inside a flow emits, by whether the candidate passed.
EVENTS = {True: "lori.gate.passed", False: "lori.gate.refused"}
#: The models whose answers to an example a rule may show, in order.
SIDES = ("champion", "before", "candidate")


@dataclass(frozen=True)
class Outcome:
    """The result of the gate.

    Attributes:
        verdict: the result of the rules.
        version: the candidate's registered version; None for a refused candidate, unless it is the
            champion.
        replaced: the champion before the gate; None if there was none.
        promoted: whether the alias was moved to the candidate.
        served: lines about the folders of `lori serve-dir` that follow the alias.
    """

    verdict: rules.GateDecision
    version: Version | None
    replaced: Version | None
    promoted: bool
    served: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the candidate passed all rules."""
        return self.verdict.passed

    def lines(self) -> list[str]:
        """Return the result as lines for people."""
        lines = [
            f"{'holds ' if f.passed else 'BROKEN'}  {f.rule}: {f.text}"
            for f in self.verdict.findings
        ]
        for finding in self.verdict.failed:
            lines += [f"        {finding.rule}: {_example(e)}" for e in finding.flipped]
        if not self.passed and self.verdict.is_champion:
            lines.append(
                f"{self.verdict.candidate} is refused, but {self.version} holds it and stays "
                "champion; lori rollback undoes its promotion"
            )
            return lines
        if not self.passed:
            return [*lines, f"{self.verdict.candidate} is refused; {_stays(self.replaced)}"]
        if self.replaced is None and self.promoted:
            line = f"{self.version} is champion: the first, there was none before it"
        elif not self.promoted:
            line = f"{self.version} is champion already"
        else:
            line = f"{self.version} is champion; {self.replaced} is kept as previous"
        return [*lines, line, *self.served]


def _stays(champion: Version | None) -> str:
    return f"{champion} stays champion" if champion else "there is no champion yet"


def _example(example: Mapping[str, str]) -> str:
    parts = [f"{name} {example[name]!r}" for name in SIDES if name in example]
    return f"{example['id']}: {example['prompt']!r}: {', '.join(parts)}"


def run_gate(
    workspace: Path,
    params: Params | Mapping[str, Any],
    candidate: str | None = None,
    *,
    send: bool = True,
) -> Outcome:
    """Judge a candidate and, if it passes, make it champion; write the verdict to `gate/`.

    The champion itself is judged by the bounds alone, and stays champion.

    Args:
        workspace: the workspace of a finished run.
        params: the content of `params.yaml`.
        candidate: the artifact, as `lori why` takes it; by default `gate.candidate`, which is
            refused if its registered version was rolled back.
        send: whether to send the verdict's rows to MLflow now; else `lori track` sends them.

    Raises:
        InputError: there is no such artifact, it was not evaluated, or a rule has no data.
        DataError: a file differs from what was recorded, or was measured of other bytes; there is
            no verdict then.
        LoriError: the registry refuses; nothing is promoted then.
    """
    from flows.serving.packaging import check_adapter, tags_of

    params = params if isinstance(params, Params) else parse(params, "params.yaml")
    named = _candidate(workspace, params, candidate)
    lineage, node = _verified(named, params)
    check_adapter(node, "be served")
    evidence = gather(lineage, node, params)
    registry, tags = Registry(workspace), tags_of(node, lineage)
    for attempt in range(ATTEMPTS):
        champion = registry.at(params.gate.model, reg.CHAMPION)
        if champion is not None and champion.holds(tags):
            outcome = _judge_champion(params, evidence, registry, champion, tags)
            break
        if champion is not None:
            check_champion(champion, tags)
        verdict = _judge(workspace, params, evidence, registry, champion)
        if candidate is None:
            known = registry.registered(params.gate.model, tags)
            verdict = _unless_rolled_back(verdict, known)
        try:
            outcome = _act(workspace, params, lineage, node, registry, champion, verdict)
            break
        except ChampionChangedError:
            if attempt == ATTEMPTS - 1:
                raise
    _record(workspace, params, outcome, node, lineage)
    if outcome.promoted:
        outcome = replace(outcome, served=tuple(update_all(workspace, params.gate.model)))
    if send:
        _send(workspace)
    return outcome


def _send(workspace: Path) -> None:
    """Send the verdict's rows to MLflow; ignore failures, since `lori track` sends them later."""
    from flows.tracking.sending import ship_all

    with contextlib.suppress(Exception):
        ship_all(workspace)


def _candidate(workspace: Path, params: Params, candidate: str | None) -> Named:
    word = candidate or params.gate.candidate
    if word is None:
        if not params.merge:
            raise InputError("gate.candidate: name the artifact to judge; there is no merge here")
        word = f"artifacts/merged/{next(iter(params.merge))}"
    return artifact_here(word, workspace, "be judged")


def _verified(named: Named, params: Params) -> tuple[Lineage, Node]:
    """Return the candidate's lineage and node after verifying all files the verdict depends on."""
    first = safety_evaluation(named.snapshot, params)
    also = [primary(first)] if first else []
    lineage, node = verified(named, "be judged", also)
    check_settings(lineage, params, "be served")
    return lineage, node


def _judge(
    workspace: Path,
    params: Params,
    evidence: tuple[Scored, Scored | None],
    registry: Registry,
    champion: Version | None,
) -> rules.GateDecision:
    ours, before = evidence
    if champion is None:
        return rules.decide(ours, None, before, params.gate)
    with reg.scratch() as folder:
        files = champion_files(champion, registry, workspace, folder)
        return rules.decide(ours, Scored(str(champion), files), before, params.gate)


def _judge_champion(
    params: Params,
    evidence: tuple[Scored, Scored | None],
    registry: Registry,
    champion: Version,
    tags: Mapping[str, str],
) -> Outcome:
    """Judge the champion itself by the bounds alone; tag it with its newest evaluation."""
    ours, before = evidence
    verdict = rules.decide(ours, None, before, params.gate)
    verdict = replace(verdict, champion=str(champion), is_champion=True)
    champion = registry.evaluated(champion, tags)
    return Outcome(verdict, champion, champion, promoted=False)


def _unless_rolled_back(verdict: rules.GateDecision, known: Version | None) -> rules.GateDecision:
    """Return the verdict, with a broken rule if the candidate's version was rolled back."""
    if known is None or reg.ROLLED_BACK not in known.tags:
        return verdict
    text = (
        f"{known} holds this model, and lori rollback took it back; to promote it all the same, "
        f"name it: lori gate {verdict.candidate}"
    )
    broken = rules.RuleResult("rolled_back", False, None, 0.0, text)
    return replace(verdict, passed=False, findings=(*verdict.findings, broken))


def _act(
    workspace: Path,
    params: Params,
    lineage: Lineage,
    node: Node,
    registry: Registry,
    champion: Version | None,
    verdict: rules.GateDecision,
) -> Outcome:
    if not verdict.passed:
        return Outcome(verdict, None, champion, promoted=False)
    version = register(workspace, params, lineage, node, registry, params.gate.model)
    registry.promote(version, champion)
    return Outcome(verdict, version, champion, promoted=True)


def register(
    workspace: Path, params: Params, lineage: Lineage, node: Node, registry: Registry, name: str
) -> Version:
    """Register a verified adapter under a name; return the existing version if it is the same."""
    from flows.serving.adapter_models import Publisher
    from flows.serving.card import card
    from flows.serving.packaging import package, tags_of

    run_facts = node.facts.get("made") or {}
    page = card(params, lineage, node)
    about = page[page.index("\n# ") : page.index("\n## How it was made")].strip()
    with reg.scratch() as folder:
        package(node, workspace, params, folder / "model", page)
        version_tags, run = tags_of(node, lineage), run_facts.get("run")
        models = Publisher(workspace, registry.client, registry.experiment_id(), lineage)
        return registry.add(
            name,
            folder / "model",
            version_tags,
            run,
            about[:DESCRIPTION],
            lambda: models.model_id(node),
        )


def _record(
    workspace: Path, params: Params, outcome: Outcome, node: Node, lineage: Lineage
) -> None:
    """Write the verdict to files, to rows for MLflow, and to Prefect's UI inside a flow."""
    from flows.serving.packaging import tags_of

    page = redact(rules.as_markdown(outcome.verdict))
    verdict = outcome.verdict.as_dict() | {
        "content_key": node.key,
        "registered": str(outcome.version) if outcome.version else None,
        "replaced": str(outcome.replaced) if outcome.replaced and outcome.promoted else None,
        "promoted": outcome.promoted,
    }
    write_json(workspace / FOLDER / "verdict.json", redacted(verdict))
    write_text(workspace / FOLDER / "verdict.md", page)
    rows = new_rows_file(workspace, "gate")
    name = f"gate {time.strftime('%Y-%m-%d %H:%M:%S')}"
    tags = {"mlflow.runName": name, "lori.verdict": "passed" if outcome.passed else "refused"}
    Shipment(Shipment.of(rows).path, tags=tags | tags_of(node, lineage)).save()
    rows_files.append(rows, "start", stage="gate", pid=os.getpid(), where=where())
    rows_files.append(rows, "metrics", values=numbers(outcome.verdict), step=None)
    rows_files.append(rows, "artifact", path=FOLDER.as_posix())
    evaluation = tags_of(node, lineage).get(reg.EVALUATION, "").partition("=")[0]
    if evaluation:
        rows_files.append(rows, "artifact", path=evaluation, name="evaluation")
    rows_files.append(rows, "end")
    _show(page, verdict, params.gate.model)


def numbers(verdict: rules.GateDecision) -> dict[str, float]:
    """Return the verdict as metrics: `gate.passed` (1 or 0), `gate.<rule>`, `gate.<rule>.limit`."""
    metrics = {"gate.passed": float(verdict.passed)}
    for finding in verdict.findings:
        if finding.value is not None:
            metrics[f"gate.{finding.rule}"] = finding.value
        metrics[f"gate.{finding.rule}.limit"] = finding.limit
    return metrics


def _show(page: str, verdict: Mapping[str, Any], model: str) -> None:
    """Show the verdict in Prefect's UI, and emit an event, if this runs inside a flow."""
    if "prefect" not in sys.modules:
        return
    from prefect.artifacts import create_markdown_artifact
    from prefect.context import FlowRunContext
    from prefect.events import emit_event

    if FlowRunContext.get() is not None:
        create_markdown_artifact(page, key="lori-gate", description="the gate's verdict")
        resource = {"prefect.resource.id": f"lori.model.{model}", "prefect.resource.name": model}
        names = ("candidate", "champion", "promoted", "registered")
        payload = {name: verdict.get(name) for name in names}
        emit_event(EVENTS[bool(verdict["passed"])], resource, payload=redacted(payload))


def last(workspace: Path) -> dict[str, Any]:
    """Return the content of the last verdict's file; empty if there is none."""
    path = workspace / FOLDER / "verdict.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
