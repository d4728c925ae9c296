"""What is learned, from which data, and what is made of the results."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lori_core.config.training import Override
from lori_core.validation import Name, PositiveInt, Strict


class Sizes(Strict):
    """How many examples of each split to keep; null keeps all there are."""

    train: PositiveInt | None = None
    validation: PositiveInt | None = None
    test: PositiveInt | None = None


class SourceSection(Strict):
    """Where examples come from, written out. A plain name stands for a ready-made definition."""

    kind: Literal["bundled", "hub", "local"]
    name: str | None = None
    """bundled: the set's name. hub: the data set's id."""
    config: str | None = None
    """hub: the configuration (subset)."""
    revision: str | None = None
    """hub: the commit, 40 hexadecimal digits."""
    path: str | None = None
    """local: a folder, or one file, of JSON or JSONL."""
    files: dict[Literal["train", "validation", "test"], str | list[str]] = Field(
        default_factory=dict
    )
    """local: file names inside `path` for each split; hub: split names, or with `columns` CSV files
    of the repository (`*.csv`)."""
    columns: list[str] = Field(default_factory=list)
    """hub: what the columns of CSV files without a header hold."""
    fields: dict[str, str] = Field(default_factory=dict)
    """prompt, target, answer, …: a field's name, or a template such as `{instruction}`."""
    format: str = "fields"
    """A named conversion for sets that a mapping cannot express (see `lori_core.data.formats`)."""
    scorer: Literal["choice", "number", "code", "refusal", "none"] = "none"
    subset: str = ""
    """What `kind` the examples get."""
    answer: str | None = None
    """The same gold answer for every example (`refuse`, `comply`)."""
    limit: dict[Literal["train", "validation", "test"], int] = Field(default_factory=dict)
    """The most examples to take from this source, for each split."""
    license: str = "unknown"


class MethodSection(BaseModel):
    """A method of `lori methods` and its options, which the method itself checks."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str


class TaskSection(Strict):
    """One task: its data, and what differs from `training` in its two phases."""

    source: str | SourceSection | list[str | SourceSection]
    """A ready-made source's name, a definition, or a list of them."""
    sizes: Sizes = Sizes()
    method: str | MethodSection = "lori-s"
    """How the task's adapter is trained: a name of `lori methods`, or that with options, as
    `{name: lora-plus, lr_ratio: 8}`."""
    projection_key: Name | None = None
    """Names this task's A; the task's own name unless given. No two tasks may share one."""
    calibration: Override
    """Changes to `training` for the calibration run; `{}` for none."""
    training: Override
    """Changes to `training` for the masked run, or another method's; `{}` for none."""

    @property
    def method_name(self) -> str:
        """The method's name."""
        return self.method if isinstance(self.method, str) else self.method.name

    @property
    def method_options(self) -> dict[str, Any]:
        """The method's options as they were written."""
        return {} if isinstance(self.method, str) else dict(self.method.model_extra or {})


class MergeSection(Strict):
    """One merged adapter (METHOD: section 3)."""

    method: Literal[
        "concat",
        "linear",
        "magnitude_prune",
        "ties",
        "dare_linear",
        "dare_ties",
        "svd",
        "magnitude_prune_svd",
        "ties_svd",
        "dare_linear_svd",
        "dare_ties_svd",
    ]
    adapters: tuple[Name, ...] = ()
    """The tasks to merge; all of them when empty."""
    weights: float | tuple[float, ...] = 1.0
    """One weight for all, or one each."""
    density: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of entries that magnitude_prune, ties and dare keep."""
    majority_sign: Literal["total", "frequency"] = "total"
    """ties: whether the larger sum or the larger count decides a sign."""
    rank: PositiveInt | None = None
    """svd: the rank of the result; the largest of the adapters' unless given."""
    seed: Annotated[int, Field(ge=0)] = 0
    """dare: which entries are dropped."""

    @model_validator(mode="after")
    def _density_where_it_is_needed(self) -> MergeSection:
        if self.density is None and self.method not in ("concat", "linear", "svd"):
            raise ValueError(f"merge: the method {self.method} needs a density, as in density: 0.7")
        return self


class ContinualSection(Strict):
    """Safety first, then each task inside its own mask (METHOD: section 4)."""

    safety_task: Name | None = None
    tasks: tuple[Name, ...] = ()
    training: Override = Field(default_factory=dict)
    """Changes to the task's masked training."""
