"""The page's lineage tree: from each merge to its adapters, masks, calibrations and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.core.files.atomic import read_json

KEY_DIGITS = 12


@dataclass(frozen=True)
class Origin:
    """One line of the tree, and what stands below it."""

    name: str
    facts: tuple[str, ...]
    key: str = ""
    below: tuple[Origin, ...] = field(default=())


def trees(params: Params, metrics: Path, manifest: Path) -> list[Origin]:
    """Return a tree for each merge, and for each safety-preserving adapter.

    Args:
        params: of the run.
        metrics: the folder of the stages' metrics, which hold the content keys.
        manifest: `data/manifest.json`; where it is missing data has no sources.
    """
    found = _Found(params, metrics, read_json(manifest) if manifest.is_file() else {})
    made = [found.merge(name) for name in params.merge]
    made += [found.continual(task) for task in params.continual.tasks]
    return [tree for tree in made if tree is not None]


class _Found:
    """The metrics of one run, and the trees built from them."""

    def __init__(self, params: Params, metrics: Path, manifest: Mapping[str, Any]) -> None:
        self.params = params
        self.metrics = metrics
        self.data: Mapping[str, Any] = manifest.get("tasks", {})

    def _said(self, stage: str, item: str) -> Mapping[str, Any]:
        path = self.metrics / stage / f"{item}.json"
        return read_json(path) if path.is_file() else {}

    def merge(self, name: str) -> Origin | None:
        said = self._said("merge", name)
        if "content_key" not in said:
            return None
        section = self.params.merge[name]
        weights = ", ".join(f"{weight:g}" for weight in self.params.merge_weights(name))
        below = [self.adapter(task) for task in self.params.merged_tasks(name)]
        facts = (f"method {section.method}", f"weights {weights}", _size(said))
        return _origin(f"artifacts/merged/{name}", facts, said, below)

    def continual(self, task: str) -> Origin | None:
        said = self._said("continual", task)
        if "content_key" not in said:
            return None
        below = [self.adapter(str(self.params.continual.safety_task)), self.mask(task)]
        facts = (self._training(task, "continual"), _size(said))
        path = f"artifacts/continual/{task}/adapter"
        return _origin(path, facts, said, [*below, self.examples(task)])

    def adapter(self, task: str) -> Origin:
        said = self._said("train", task)
        below = [self.mask(task), self.examples(task)]
        facts = (self._training(task, "training"), _size(said))
        return _origin(f"artifacts/{task}/adapter", facts, said, below)

    def mask(self, task: str) -> Origin | None:
        said = self._said("mask", task)
        if "sparsity" not in said:  # a method without masks
            return None
        facts = (f"sparsity {said['sparsity']}", f"scope {said['scope']}")
        path = f"artifacts/{task}/mask.safetensors"
        return _origin(path, facts, said, [self.calibrated(task)])

    def calibrated(self, task: str) -> Origin:
        said = self._said("calibrate", task)
        facts = (self._training(task, "calibration"), _size(said))
        return _origin(f"artifacts/{task}/calibrated", facts, said, [self.examples(task)])

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
    name: str, facts: tuple[str, ...], said: Mapping[str, Any], below: Sequence[Origin | None]
) -> Origin:
    shown = tuple(fact for fact in facts if fact)
    key = str(said.get("content_key", ""))[:KEY_DIGITS]
    return Origin(name, shown, key, tuple(origin for origin in below if origin is not None))


def _size(said: Mapping[str, Any]) -> str:
    size = said.get("adapter_bytes")
    return "" if size is None else f"{size / 1e6:.2f} MB"


def _source(source: Mapping[str, Any]) -> str:
    named = source.get("name") or source.get("path") or ""
    revision = f" at {source['revision'][:12]}" if source.get("revision") else ""
    return f"{source['kind']} {named}{revision}, licence {source.get('license', 'not stated')}"
