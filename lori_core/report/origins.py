"""The lineage tree of the report: from each merge to its adapters, masks, calibrations and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.core.files.atomic import read_json
from lori_core.report import searches

KEY_DIGITS = 12


@dataclass(frozen=True)
class Origin:
    """A node of the lineage tree.

    Attributes:
        name: the artifact's path.
        facts: short texts about the artifact.
        key: the first digits of its content key; empty if it has none.
        below: the nodes that the artifact was made from.
    """

    name: str
    facts: tuple[str, ...]
    key: str = ""
    below: tuple[Origin, ...] = field(default=())


def trees(params: Params, metrics: Path, manifest: Path) -> list[Origin]:
    """Return a tree for each merge and each safety-preserving adapter.

    Args:
        params: the parameters of the run.
        metrics: the folder of the stages' metrics, which have the content keys.
        manifest: `data/manifest.json`; without it, the tree has no data sources.
    """
    builder = _TreeBuilder(params, metrics, read_json(manifest) if manifest.is_file() else {})
    nodes = [builder.merge(name) for name in params.merge]
    nodes += [builder.continual(task) for task in params.continual.tasks]
    return [tree for tree in nodes if tree is not None]


class _TreeBuilder:
    """Builds the trees of one run from its metrics."""

    def __init__(self, params: Params, metrics: Path, manifest: Mapping[str, Any]) -> None:
        self.params = params
        self.metrics = metrics
        self.data: Mapping[str, Any] = manifest.get("tasks", {})

    def _metrics_of(self, stage: str, item: str) -> Mapping[str, Any]:
        path = self.metrics / stage / f"{item}.json"
        return read_json(path) if path.is_file() else {}

    def merge(self, name: str) -> Origin | None:
        recorded = self._metrics_of("merge", name)
        if "content_key" not in recorded:
            return None
        section = self.params.merge[name]
        search = self._metrics_of("search", name)
        weights = (
            f"searched weights {searches.chosen_weights(search)}"
            if search.get("searched")
            else f"weights {', '.join(f'{w:g}' for w in self.params.merge_weights(name))}"
        )
        parent = self.continual if section.stage == "continual" else self.adapter
        below = [parent(task) for task in self.params.merged_tasks(name)]
        facts = (f"method {section.method}", weights, _size(recorded))
        return _origin(f"artifacts/merged/{name}", facts, recorded, below)

    def continual(self, task: str) -> Origin | None:
        recorded = self._metrics_of("continual", task)
        if "content_key" not in recorded:
            return None
        below = [self.adapter(str(self.params.continual.safety_task)), self.mask(task)]
        own, method = self.params.method(task).name, self.params.method(task, "continual").name
        other = "" if method == own else f"method {method}"
        facts = (other, self._training(task, "continual"), _size(recorded))
        path = f"artifacts/continual/{task}/adapter"
        return _origin(path, facts, recorded, [*below, self.examples(task)])

    def adapter(self, task: str) -> Origin:
        recorded = self._metrics_of("train", task)
        below = [self.mask(task), self.examples(task)]
        facts = (self._training(task, "training"), _size(recorded))
        return _origin(f"artifacts/{task}/adapter", facts, recorded, below)

    def mask(self, task: str) -> Origin | None:
        recorded = self._metrics_of("mask", task)
        if "sparsity" not in recorded:  # a method without masks
            return None
        facts = (f"sparsity {recorded['sparsity']}", f"scope {recorded['scope']}")
        path = f"artifacts/{task}/mask.safetensors"
        return _origin(path, facts, recorded, [self.calibrated(task)])

    def calibrated(self, task: str) -> Origin:
        recorded = self._metrics_of("calibrate", task)
        facts = (self._training(task, "calibration"), _size(recorded))
        return _origin(f"artifacts/{task}/calibrated", facts, recorded, [self.examples(task)])

    def examples(self, task: str) -> Origin:
        entry = self.data.get(task, {})
        count = entry.get("splits", {}).get("train", {}).get("count")
        rows = (f"{count} rows",) if count is not None else ()
        sources = tuple(_source(source) for source in entry.get("sources", ()))
        return Origin(f"data/{task}/train.jsonl", (*rows, *sources))

    def _training(self, task: str, phase: Any) -> str:
        section = self.params.phase(task, phase)
        return f"learning rate {section.learning_rate:g}, epochs {section.epochs:g}"


def _origin(
    name: str, facts: tuple[str, ...], recorded: Mapping[str, Any], below: Sequence[Origin | None]
) -> Origin:
    texts = tuple(fact for fact in facts if fact)
    key = str(recorded.get("content_key", ""))[:KEY_DIGITS]
    return Origin(name, texts, key, tuple(origin for origin in below if origin is not None))


def _size(recorded: Mapping[str, Any]) -> str:
    size = recorded.get("adapter_bytes")
    return "" if size is None else f"{size / 1e6:.2f} MB"


def _source(source: Mapping[str, Any]) -> str:
    named = source.get("name") or source.get("path") or ""
    revision = f" at {source['revision'][:12]}" if source.get("revision") else ""
    return f"{source['kind']} {named}{revision}, licence {source.get('license', 'not stated')}"
