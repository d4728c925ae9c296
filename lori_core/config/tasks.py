"""What is learned, from which data, and what is made of the results."""

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
from lori_core.registries.merge_method import MERGE_METHODS
from lori_core.registries.scorer import UNSCORED, check_scorer

#: The fields of an example that `fields` of a source can fill.
FIELDS = ("prompt", "target", "answer", "kind", "template", "scorer")


#: One or more names.
Texts = Annotated[list[Text], Field(min_length=1)]


class Sizes(Strict):
    """How many examples of each split to keep; null keeps all there are."""

    train: PositiveInt | None = None
    validation: PositiveInt | None = None
    test: PositiveInt | None = None


class SourceSection(Strict):
    """Where examples come from, written out. A plain name stands for a ready-made definition."""

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
    """hub: what the columns of CSV files without a header hold."""
    fields: dict[str, str] = Field(default_factory=dict)
    """prompt, target, answer, …: a field's name, or a template such as `{instruction}` (see
    `lori_core.config.templates`)."""
    format: Text = "fields"
    """A named conversion for sets that a mapping cannot express (see
    `lori_core.data.sources.formats`)."""
    scorer: Annotated[str, AfterValidator(check_scorer)] = UNSCORED
    subset: str = ""
    """What `kind` the examples get."""
    answer: Text | None = None
    """The same gold answer for every example (`refuse`, `comply`)."""
    limit: dict[Literal["train", "validation", "test"], Count] = Field(default_factory=dict)
    """The most examples to take from this source, for each split."""
    license: Text = "unknown"

    def check(self, where: str) -> None:
        """Refuse templates that cannot be filled; `where` is the key the source stands under.

        Raises:
            ValueError: with one line that names the field.
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


# Told apart by what is written, so that an error is about that and not about another form.
_Name = Annotated[str, Tag("NAME")]
_Source = Annotated[SourceSection, Tag("SOURCE")]
_Listed = Annotated[_Name | _Source, Discriminator(_form)]
_Sources = Annotated[
    _Name | _Source | Annotated[list[_Listed], Tag("LIST"), Field(min_length=1)],
    Discriminator(_form),
]


class MethodSection(BaseModel):
    """A method of `lori methods` and its options, which the method itself checks."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str


class TaskSection(Strict):
    """One task: its data, and what differs from `training` in its two phases."""

    source: _Sources
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

    def sources(self, where: str) -> list[tuple[str, str | SourceSection]]:
        """Return the sources with the key that each stands under, `where` being the task's."""
        if not isinstance(self.source, list):
            return [(f"{where}.source", self.source)]
        if len(self.source) == 1:
            return [(f"{where}.source", self.source[0])]
        return [(f"{where}.source[{n}]", source) for n, source in enumerate(self.source)]

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

    method: Annotated[str, AfterValidator(MERGE_METHODS.check)]
    """A name of `registries.merge_method.MERGE_METHODS`."""
    adapters: tuple[Name, ...] = ()
    """The tasks to merge; all of them when empty."""
    weights: Number | tuple[Number, ...] = 1.0
    """One weight for all, or one each."""
    density: Density | None = None
    """The share of entries to keep, for the methods that prune or drop."""
    majority_sign: Literal["total", "frequency"] = "total"
    """ties, della: whether the larger sum or the larger count decides a sign."""
    rank: Rank | None = None
    """The rank of the result, for the methods that can cut to one (docs/merging.md)."""
    seed: Seed = 0
    """dare, della: which entries are dropped."""

    @model_validator(mode="after")
    def _density_where_it_is_needed(self) -> MergeSection:
        method = MERGE_METHODS[self.method]
        if self.density is None and method.needs_density:
            raise ValueError(f"the method {self.method} needs a density, as in density: 0.7")
        for field in ("density", "rank"):
            value = getattr(self, field)
            if value is not None and field not in method.uses:
                raise ValueError(f"the method {self.method} has no {field}, got {value}; remove it")
        return self


class ContinualSection(Strict):
    """Safety first, then each task inside its own mask (METHOD: section 4)."""

    safety_task: Name | None = None
    tasks: tuple[Name, ...] = ()
    training: Override = Field(default_factory=dict)
    """Changes to the task's masked training."""
