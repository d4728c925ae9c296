"""The sections `tasks`, `merge` and `continual` of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from lori_core.config.operations import Bound
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
    Share,
    Strict,
    Text,
    unique,
)
from lori_core.core.errors import shown, unknown
from lori_core.registries.merge_method import MERGE_METHODS, MergeMethod
from lori_core.registries.scorer import UNSCORED, check_scorer

#: The fields of an example that `fields` of a source can fill.
FIELDS = ("prompt", "target", "answer", "kind", "template", "scorer")


#: One or more names.
Texts = Annotated[list[Text], Field(min_length=1), AfterValidator(unique)]


class Sizes(Strict):
    """The most examples of each split; null for all."""

    train: PositiveInt | None = None
    validation: PositiveInt | None = None
    test: PositiveInt | None = None


def _split_form(value: Any) -> str:
    return "SHARES" if isinstance(value, dict) else "COLUMN"


def _less_than_all(shares: dict[str, float]) -> dict[str, float]:
    if sum(shares.values()) >= 1:
        raise ValueError(f"{shares}: the shares add up to 1 or more; some must stay for train")
    return shares


_Shares = Annotated[
    dict[Literal["test", "validation"], Annotated[Share, Field(gt=0)]],
    Field(min_length=1),
    AfterValidator(_less_than_all),
]
#: The name of a column, or the share of each split.
SplitRule = Annotated[
    Annotated[Text, Tag("COLUMN")] | Annotated[_Shares, Tag("SHARES")], Discriminator(_split_form)
]


def _condition_form(value: Any) -> str:
    return "BOUND" if isinstance(value, dict) else "VALUES" if isinstance(value, list) else "VALUE"


def _scalar(value: Any) -> Any:
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise ValueError(f"{shown(value)}: a value is a text, a number, true, false or null")
    return value


_Value = Annotated[Any, AfterValidator(_scalar)]
#: A value, several values, or bounds of a number.
Condition = Annotated[
    Annotated[_Value, Tag("VALUE")]
    | Annotated[list[_Value], Tag("VALUES"), Field(min_length=1)]
    | Annotated[Bound, Tag("BOUND")],
    Discriminator(_condition_form),
]


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
    """local: a folder, a file or a glob pattern. Formats: CSV and TSV, whose first row names the
    columns, JSON, JSONL, Parquet and Arrow, each also as `.gz` or `.zst`."""
    files: dict[Literal["train", "validation", "test"], Text | Texts] = Field(default_factory=dict)
    """local: file names or glob patterns inside `path` for each split; hub: split names, or with
    `columns` CSV files of the repository (`*.csv`)."""
    split: SplitRule | None = None
    """local, hub: how the records of the train files are divided: the name of a column that holds
    train, validation or test, or the shares to move, as `{test: 0.2, validation: 0.1}`."""
    filter: dict[Text, Condition] = Field(default_factory=dict)
    """local, hub: the records to keep: a field (`lang`, `meta.score`), and its value, a list of
    values, or bounds (`{at_least: 4}`)."""
    columns: Annotated[list[Text], AfterValidator(unique)] = Field(default_factory=list)
    """hub: the column names of CSV files without a header."""
    fields: dict[str, str] = Field(default_factory=dict)
    """prompt, target, answer, …: a field's name, or a template such as `{instruction}` (see
    `lori_core.config.templates`)."""
    messages: Text | None = None
    """local, hub: the column with conversations (a list of turns with `role` and `content`, or with
    `from` and `value`), instead of `fields`. All assistant turns are learned."""
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
        self._check_rules(where)
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

    def _check_rules(self, where: str) -> None:
        """Check `split` and `filter`; raises as `check`."""
        for name in self.filter:
            _check_field(f"{where}.filter", name)
        for key in ("split", "messages"):
            if isinstance(getattr(self, key), str):
                _check_field(f"{where}.{key}", getattr(self, key))
        if self.messages is None:
            return
        for key, default in {"fields": {}, "format": "fields", "scorer": UNSCORED}.items():
            if getattr(self, key) != default:
                raise ValueError(
                    f"{where}.{key}: conversations (messages) have no {key}; remove one of the two"
                )


def _check_field(where: str, name: str) -> None:
    """Refuse a name of a field that is a template.

    Raises:
        ValueError: names `where`.
    """
    try:
        if "{" in name:
            raise ValueError(f"{shown(name)}: name a field, without braces")
        read_template(name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


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


class MethodChoice(NamedTuple):
    """The training method of a task in one phase."""

    name: str
    options: dict[str, Any]
    """As the user wrote them; `methods.catalogue.options` validates them."""
    where: str
    """The key of `params.yaml` that names the method."""

    @classmethod
    def of(cls, method: str | MethodSection, where: str) -> MethodChoice:
        """Return the choice that a key of `params.yaml` makes."""
        if isinstance(method, str):
            return cls(method, {}, where)
        return cls(method.name, dict(method.model_extra or {}), where)


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
    threshold: Density | None = None
    """safemerge: the least agreement with the safety adapter of a module that stays as it is; null
    for 0.35."""
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
        for field in ("density", "rank", "threshold"):
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
    method: str | MethodSection | None = None
    """The training method of this phase, for all its tasks; null: each task's own."""
    training: Override = Field(default_factory=dict)
    """Overrides of the tasks' `training` in this phase."""
