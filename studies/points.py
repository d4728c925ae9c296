"""The points of the experiments: everything that one run depends on, and its name.

A point's name ends in a digest of its settings, the names of the points it builds on among them.
So two experiments that need the same run name the same point, and a changed setting is another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from lori_core.config import (
    EvaluationSection,
    LoriSection,
    ModelSection,
    PromptSection,
    TrainingSection,
)
from lori_core.config.validation import Strict, first_error
from lori_core.core.errors import InputError, unknown
from lori_core.core.files.atomic import digest, read_json, write_json

FOLDER = Path("experiments")
POINTS = FOLDER / "points.json"
ARTIFACTS = Path("artifacts/experiments")
METRICS = Path("metrics/experiments")
#: What each point keeps in its folder: what was trained, and what was measured.
MODEL = "model"
FACTS = "facts.json"


class Train(Strict):
    """One training run."""

    kind: Literal["train"] = "train"
    task: str
    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    model: ModelSection
    prompt: PromptSection
    lori: LoriSection
    training: TrainingSection
    mask_of: str | None = None
    """lori-s: the LoRI-D point whose B the mask is taken from; a random mask needs none."""
    start: str | None = None
    """The point to go on from."""
    tries: tuple[str, ...] = ()
    """The points whose best learning rate, by validation loss, is used."""

    @property
    def parents(self) -> tuple[str, ...]:
        """The points it builds on."""
        return tuple(p for p in (self.mask_of, self.start, *self.tries) if p is not None)

    @property
    def label(self) -> str:
        """What people call it."""
        return f"train-{self.method}-{self.task}-s{self.lori.seed}"


class Mixture(Strict):
    """A model to score: the base with nothing, one trained point, or a merge of several."""

    adapters: tuple[str, ...] = ()
    method: str | None = None
    """None for the point's own model as it is."""
    weights: tuple[float, ...] = ()
    density: float | None = None
    seed: int = 0


class Score(Strict):
    """Scores of some models on the same test sets, the base loaded once."""

    kind: Literal["score"] = "score"
    what: str
    models: dict[str, Mixture]
    scored: tuple[str, ...]
    """The tasks whose outputs are generated and judged."""
    losses: tuple[str, ...]
    """The tasks whose held-out loss is measured."""
    model: ModelSection
    prompt: PromptSection
    evaluation: EvaluationSection
    max_lengths: dict[str, int]

    @property
    def parents(self) -> tuple[str, ...]:
        """The points whose models are scored."""
        named = [name for mixture in self.models.values() for name in mixture.adapters]
        return tuple(dict.fromkeys(named))

    @property
    def label(self) -> str:
        """What people call it."""
        return f"score-{self.what}"


class SparsityMap(Strict):
    """Where masks of several sparsities keep B."""

    kind: Literal["map"] = "map"
    task: str
    calibrated: str
    lori: LoriSection
    sparsities: tuple[float, ...]

    @property
    def parents(self) -> tuple[str, ...]:
        """The LoRI-D point."""
        return (self.calibrated,)

    @property
    def label(self) -> str:
        """What people call it."""
        return f"map-{self.task}-s{self.lori.seed}"


class Orthogonality(Strict):
    """Cosines between updates (Property 1): of drawn adapters, and of trained ones."""

    kind: Literal["orthogonality"] = "orthogonality"
    seed: int
    input_dimensions: tuple[int, ...]
    ranks: tuple[int, ...]
    trained: dict[str, tuple[str, ...]]
    """By rank, LoRI-D points of several tasks."""

    @property
    def parents(self) -> tuple[str, ...]:
        """The trained points."""
        return tuple(name for names in self.trained.values() for name in names)

    @property
    def label(self) -> str:
        """What people call it."""
        return f"orthogonality-s{self.seed}"


class Cell(Strict):
    """Where one point's measurements stand in an experiment."""

    point: str
    model: str = ""
    """The name of a score's model; empty for what is no score."""
    factors: dict[str, str | float | int | None] = Field(default_factory=dict)
    seed: int
    tasks: tuple[str, ...] = ()
    """Only measurements on these; empty for all."""


class Collect(Strict):
    """An experiment: its cells, brought together in `metrics/experiments/NAME.json`."""

    kind: Literal["collect"] = "collect"
    experiment: str
    cells: tuple[Cell, ...]
    info: dict[str, Any]

    @property
    def parents(self) -> tuple[str, ...]:
        """The points it shows."""
        return tuple(dict.fromkeys(cell.point for cell in self.cells))

    @property
    def label(self) -> str:
        """What people call it."""
        return self.experiment


Point = Train | Score | SparsityMap | Orthogonality | Collect
_POINT: TypeAdapter[Point] = TypeAdapter(Annotated[Point, Field(discriminator="kind")])


def name_of(point: Point) -> str:
    """Return a point's name; an experiment is called by its own."""
    if isinstance(point, Collect):
        return point.experiment
    return f"{point.label}-{digest(point.model_dump(mode='json'))[:10]}"


def folder_of(name: str) -> Path:
    """Return where a point keeps what it made."""
    return ARTIFACTS / name


class Points:
    """Points by name, each after those it builds on."""

    def __init__(self) -> None:
        self.by_name: dict[str, Point] = {}

    def add(self, point: Point) -> str:
        """Add a point if it is not there yet; return its name."""
        name = name_of(point)
        self.by_name.setdefault(name, point)
        return name

    def save(self, path: Path = POINTS) -> None:
        """Write all points as JSON by name."""
        named = {name: point.model_dump(mode="json") for name, point in self.by_name.items()}
        write_json(path, named)


def load(name: str, path: Path = POINTS) -> Point:
    """Read one point.

    Raises:
        InputError: if there is none of that name, or it is not what a point is.
    """
    known: Mapping[str, Any] = read_json(path)
    if name not in known:
        raise InputError(f"{path}: {unknown('point', name, known)}")
    try:
        return _POINT.validate_python(known[name])
    except ValidationError as error:
        raise InputError(f"{path}: {name}: {first_error(error, Train)}") from None
