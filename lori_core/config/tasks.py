"""The sections `tasks`, `merge` and `continual` of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from lori_core.config.search import SearchSection
from lori_core.config.templates import read_template
from lori_core.config.training import Override
from lori_core.config.validation import (
    Count,
    Density,
    Name,
    Number,
    PathText,
    PositiveInt,
    Rank,
    Seed,
    Strict,
    Text,
)
from lori_core.core.errors import unknown
from lori_core.registries.merge_method import MERGE_METHODS, MergeMethod
from lori_core.registries.scorer import UNSCORED, check_scorer

#: The fields of an example that `fields` of a source can fill.
FIELDS = ("prompt", "target", "answer", "kind", "template", "scorer")


#: One or more names.
Texts = Annotated[list[Text], Field(min_length=1)]


class Sizes(Strict):
    """The most examples of each split; null for all."""

    train: PositiveInt | None = None
    validation: PositiveInt | None = None
    test: PositiveInt | None = None


class SourceSection(Strict):
    """The definition of a data source. A plain name refers to a built-in definition."""

    kind: Literal["bundled", "hub", "local", "extension"]
    name: Text | None = None
    """bundled, extension: the set's name. hub: the data set's id."""
    config: Text | None = None
    """hub: the configuration (subset)."""
    revision: Text | None = None
    """hub: the commit, 40 hexadecimal digits."""
    path: PathText | None = None
    """local: a folder, or one file, of JSON, JSONL, or CSV whose first row names the columns."""
    files: dict[Literal["train", "validation", "test"], Text | Texts] = Field(default_factory=dict)
    """local: file names inside `path` for each split; hub: split names, or with `columns` CSV files
    of the repository (`*.csv`)."""
    columns: list[Text] = Field(default_factory=list)
    """hub: the column names of CSV files without a header."""
    fields: dict[str, str] = Field(default_factory=dict)
    """prompt, target, answer, …: a field's name, or a template such as `{instruction}` (see
    `lori_core.config.templates`)."""
    format: Text = "fields"
    """A named conversion of records that `fields` cannot express (see
    `lori_core.data.sources.formats`)."""
    scorer: Annotated[str, AfterValidator(check_scorer)] = UNSCORED
    subset: str = ""
    """The `kind` of the examples."""
    answer: Text | None = None
    """The same gold answer for every example (`refuse`, `comply`)."""
    limit: dict[Literal["train", "validation", "test"], Count] = Field(default_factory=dict)
    """The most examples to take from this source, for each split."""
    license: Text = "unknown"

    def check(self, where: str) -> None:
        """Check the templates in `fields`.

        Args:
            where: the source's key, for messages.

        Raises:
            ValueError: a template is invalid, or a field unknown or missing.
        """
        if not self.fields:
            return
        if self.format != "fields":
            raise ValueError(
                f"{where}.fields: the format {self.format!r} says itself which fields it reads; "
                "take away one of the two"
            )
        for name, template in self.fields.items():
            if name not in FIELDS:
                raise ValueError(f"{where}.fields: {unknown('field', name, FIELDS)}")
            try:
                read_template(template)
            except ValueError as error:
                raise ValueError(f"{where}.fields.{name}: {error}") from None
        for name in ("prompt", "target"):
            if name not in self.fields:
                raise ValueError(f'{where}.fields.{name}: this key is needed ("" for no {name})')


def _form(value: Any) -> str:
    return "NAME" if isinstance(value, str) else "LIST" if isinstance(value, list) else "SOURCE"


# Discriminated by the value's type, so that an error refers to the form that the user wrote.
_Name = Annotated[str, Tag("NAME")]
_Source = Annotated[SourceSection, Tag("SOURCE")]
_Listed = Annotated[_Name | _Source, Discriminator(_form)]
_Sources = Annotated[
    _Name | _Source | Annotated[list[_Listed], Tag("LIST"), Field(min_length=1)],
    Discriminator(_form),
]


class MethodSection(BaseModel):
    """A method of `lori methods` with options, which the method validates."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str


class TaskSection(Strict):
    """One task: its data, its method, and its overrides of `training` in each phase."""

    source: _Sources
    """A built-in source's name, a definition, or a list of them."""
    sizes: Sizes = Sizes()
    method: str | MethodSection = "lori-s"
    """The training method: a name of `lori methods`, or a name with options, as
    `{name: lora-plus, lr_ratio: 8}`."""
    projection_key: Name | None = None
    """The key from which this task's A is drawn, unique among the tasks; by default the task's
    name."""
    calibration: Override
    """Overrides of `training` for the calibration run; `{}` for none."""
    training: Override
    """Overrides of `training` for the training run; `{}` for none."""

    def sources(self, where: str) -> list[tuple[str, str | SourceSection]]:
        """Return (key, source) of each source; `where` is the task's key."""
        if not isinstance(self.source, list):
            return [(f"{where}.source", self.source)]
        if len(self.source) == 1:
            return [(f"{where}.source", self.source[0])]
        return [(f"{where}.source[{n}]", source) for n, source in enumerate(self.source)]

    @property
    def method_name(self) -> str:
        """The name of the training method."""
        return self.method if isinstance(self.method, str) else self.method.name

    @property
    def method_options(self) -> dict[str, Any]:
        """The options of the training method, not yet validated."""
        return {} if isinstance(self.method, str) else dict(self.method.model_extra or {})


class MergeSection(Strict):
    """One merged adapter."""

    method: Annotated[str, AfterValidator(MERGE_METHODS.check)]
    """A name of `registries.merge_method.MERGE_METHODS`."""
    stage: Literal["train", "continual"] = "train"
    """The stage whose adapters are merged: each task's own, or its safety-preserving adapter."""
    adapters: tuple[Name, ...] = ()
    """The tasks whose adapters are merged; all, or all of `continual.tasks`, if empty."""
    weights: Number | tuple[Number, ...] = 1.0
    """One weight for all adapters, or one for each."""
    density: Density | None = None
    """The share of entries to keep, for methods that prune or drop entries."""
    majority_sign: Literal["total", "frequency"] = "total"
    """ties, della: whether the larger sum or the larger count decides a sign."""
    rank: Rank | None = None
    """The rank of the result, for methods that can truncate to one (docs/merging.md)."""
    seed: Seed = 0
    """dare, della: the seed of the dropped entries."""
    search: SearchSection | None = None
    """How the weights are searched, from `weights` on; null to take `weights` as they are."""

    @model_validator(mode="after")
    def _options_of_the_method(self) -> MergeSection:
        method = MERGE_METHODS[self.method]
        if method.starts and self.stage != "continual":
            raise ValueError(
                f"the method {self.method} adds up what continual adapters changed in the safety "
                "adapter; set stage: continual"
            )
        if self.density is None and method.needs_density:
            raise ValueError(f"the method {self.method} needs a density, as in density: 0.7")
        for field in ("density", "rank"):
            value = getattr(self, field)
            if value is not None and field not in method.uses:
                raise ValueError(f"the method {self.method} has no {field}, got {value}; remove it")
        self._check_search(method)
        return self

    def _check_search(self, method: MergeMethod) -> None:
        if self.search is None:
            return
        optimizer, by = self.search.optimizer, self.search.by
        if optimizer == "gradient" and not method.sums:
            fit = ", ".join(name for name, known in MERGE_METHODS.items() if known.sums)
            raise ValueError(
                f"search.optimizer: the method {self.method} has no gradient in its weights; "
                f"choose black_box, or one of the methods {fit}"
            )
        if by != "task" and (optimizer == "black_box" or not method.sums):
            raise ValueError(
                f"search.by: {by} needs the optimizer gradient (black_box searches by task), which "
                f"the method {self.method} {'has' if method.sums else 'does not have'}"
            )


class ContinualSection(Strict):
    """Continual training: each task, inside its own mask, on top of the safety adapter."""

    safety_task: Name | None = None
    tasks: tuple[Name, ...] = ()
    training: Override = Field(default_factory=dict)
    """Overrides of the tasks' `training` in this phase."""
