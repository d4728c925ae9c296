"""The adapters of a merge of `params.yaml`, and the merge itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lori_core.config import Params
from lori_core.core.errors import DataError
from lori_core.pipeline.results import adapter_path, continual_path, weights_path
from lori_core.registries.merge_method import MERGE_METHODS

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter
    from lori_core.merging.learned.weight_groups import MergeWeights
    from lori_core.merging.merge import Weight
    from lori_core.merging.merge_methods import Options


@dataclass(frozen=True)
class Parents:
    """The inputs of one merge.

    Attributes:
        method: the merge method.
        adapters: the adapters by task, in order.
        options: the method's options.
        safety: the safety task and its adapter, for a method that merges onto it; else None.
    """

    method: str
    adapters: dict[str, Adapter]
    options: Options
    safety: tuple[str, Adapter] | None

    @property
    def density(self) -> float | None:
        """The density of the method; None if it has none."""
        return self.options.density

    @property
    def start(self) -> Adapter | None:
        """The safety adapter, for a method that merges onto it."""
        return None if self.safety is None else self.safety[1]

    def merged(self, weights: Mapping[str, Weight], density: float | None = None) -> Adapter:
        """Return the merge with a weight for each task.

        Args:
            weights: by task, its weight, or its weight for each module.
            density: another density than that of the options; None to keep it.
        """
        from lori_core.merging.merge import merge

        options = self.options if density is None else replace(self.options, density=density)
        ordered = [weights[task] for task in self.adapters]
        return merge(self.method, list(self.adapters.values()), ordered, options, self.start)

    def with_weights(self, weights: MergeWeights) -> Adapter:
        """Return the merge with searched weights."""
        return self.merged(self.by_module(weights), weights.density)

    def by_module(self, weights: MergeWeights) -> dict[str, Weight]:
        """Return searched weights by task, as numbers where all modules have one weight."""
        return {
            task: weights.mean(task)
            if weights.by == "task"
            else weights.of_modules(task, adapter.modules)
            for task, adapter in self.adapters.items()
        }

    def alone(self, weights: Mapping[str, Weight]) -> dict[str, Adapter]:
        """Return W0 + w_t·ΔW_t of each task: its weighted adapter without the others.

        Onto a safety adapter, this is that adapter with the task's weighted change; for the safety
        task, the safety adapter itself.
        """
        from lori_core.merging.merge import merge

        method = "concat" if self.safety is None else self.method
        alone = {
            task: merge(method, [adapter], [weights[task]], start=self.start)
            for task, adapter in self.adapters.items()
        }
        return alone | ({} if self.safety is None else dict([self.safety]))


def parents_of(params: Params, name: str) -> Parents:
    """Load the adapters that `merge.<name>` merges."""
    from lori_core.adapters import adapter_file
    from lori_core.merging.merge_methods import Options

    section = params.merge[name]
    path = continual_path if section.stage == "continual" else adapter_path
    adapters = {task: adapter_file.load(path(task)) for task in params.merged_tasks(name)}
    used = {"density", "majority_sign", "rank", "seed", "threshold"}
    options = Options(**section.model_dump(include=used))
    safety = None
    if MERGE_METHODS[section.method].starts:
        task = str(params.continual.safety_task)
        safety = (task, adapter_file.load(adapter_path(task)))
    return Parents(section.method, adapters, options, safety)


def given_weights(params: Params, name: str) -> dict[str, float]:
    """Return `merge.<name>.weights` by task."""
    return dict(zip(params.merged_tasks(name), params.merge_weights(name), strict=True))


def weights_of(
    params: Params, name: str, parents: Parents
) -> tuple[Mapping[str, Weight], float | None]:
    """Return a merge's weights by task and its searched density: searched ones, or its own.

    Raises:
        DataError: the weights are to be searched, and there is no result of the search, or one for
            other tasks.
    """
    from lori_core.merging.learned.weight_groups import MergeWeights

    if params.merge[name].search is None:
        return given_weights(params, name), None
    path = weights_path(name)
    if not path.is_file():
        raise DataError(f"{path}: missing; search the weights first: lori stage search {name}")
    found = MergeWeights.read(path)
    if found.weights.keys() != parents.adapters.keys():
        known, merged = ", ".join(found.weights), ", ".join(parents.adapters)
        raise DataError(
            f"{path}: holds weights for {known}, and {merged} are merged; search the weights "
            f"again: lori stage search {name}"
        )
    return parents.by_module(found), found.density
