"""The section `merge.<name>.search` of `params.yaml`: how merge weights are searched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lori_core.config.validation import Few, Name, PositiveFloat, Strict

#: A finite factor, 0 or more.
Factor = Annotated[float, Field(strict=True, ge=0, le=1e6)]


class SearchSection(Strict):
    """The search for a merge's weights on the tasks' validation examples."""

    by: Literal["task", "layer", "projection"] = "task"
    """One weight for each task; for each task and layer; or for each task, layer and projection."""
    optimizer: Literal["auto", "gradient", "black_box"] = "auto"
    """gradient: Adam, for methods whose update is a weighted sum. black_box: Nelder-Mead, for any
    method, by task only; it searches the density too. auto: gradient where the method allows it."""
    examples: Few = 16
    """The first validation examples of each task whose losses are measured."""
    steps: Few = 12
    """The most optimizer steps, or the most points that black_box tries."""
    batch: Few = 4
    """The examples of each task in one step."""
    learning_rate: PositiveFloat = 0.1
    """The learning rate of the weights."""
    candidates: Few = 4
    """The most candidates that are measured by the gate's rules; the weights of the merge itself
    are the first one."""
    task_weights: dict[Name, Factor] = Field(default_factory=dict)
    """How much each task counts; 1 for tasks that are not named."""
    uniformity: Factor = 0.02
    """The factor of the penalty on the mean square deviation of the weights from their mean."""
