"""The points of the experiments: the settings of one run, and its name.

A point's name ends in a digest of its settings and of the names of its parent points. So two
experiments that need the same run share one point, and a changed setting makes a new point.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
)

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
from studies.analysis import base_names

FOLDER = Path("experiments")
POINTS = FOLDER / "points.json"
ARTIFACTS = Path("artifacts/experiments")
METRICS = Path("metrics/experiments")
#: A folder of rows for each base that `lori experiment --base` named.
BASES = METRICS / base_names.FOLDER
#: The files in a point's folder: the trained adapter or model, and the measurements.
MODEL = "model"
FACTS = "facts.json"


class Projection(Strict):
    """How A is drawn, if not at random from the key that is the task's name."""

    key: str | None = None
    """The key; None for the task's name."""
    avoid: tuple[str, ...] = ()
    """The tasks to whose inputs A is orthogonal."""
    examples: int = 0
    """The number of training examples of each of these tasks whose inputs are measured."""


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
    """For lori-s, the LoRI-D point whose B the mask is computed from; None for a random mask."""
    start: str | None = None
    """The point whose adapter the training starts from."""
    tries: tuple[str, ...] = ()
    """Points with other learning rates; that of the least validation loss is used."""
    safety: str | None = None
    """The task whose training examples the method may mix in."""
    projection: Projection | None = None
    """How A is drawn; None for the ordinary way."""

    @model_serializer(mode="wrap")
    def _without_unset_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave later fields out if they are not set: names from before them stay valid."""
        values: dict[str, Any] = dump(self)
        for name in ("safety", "projection"):
            if values.get(name) is None:
                values.pop(name, None)
        return values

    @property
    def parents(self) -> tuple[str, ...]:
        """The points that it depends on."""
        return tuple(p for p in (self.mask_of, self.start, *self.tries) if p is not None)

    @property
    def label(self) -> str:
        """The readable part of its name."""
        return f"train-{self.method}-{self.task}-s{self.lori.seed}"


class Mixture(Strict):
    """A model to score: the base model, one trained point, or a merge of several points."""

    adapters: tuple[str, ...] = ()
    method: str | None = None
    """The merge method; None for one point without a merge."""
    weights: tuple[float, ...] = ()
    density: float | None = None
    seed: int = 0


class Score(Strict):
    """Scores of some models on the same test sets; the base model is loaded once."""

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
        """The readable part of its name."""
        return f"score-{self.what}"


class SparsityMap(Strict):
    """The density of masks of several sparsities, by layer and projection."""

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
        """The readable part of its name."""
        return f"map-{self.task}-s{self.lori.seed}"


class Orthogonality(Strict):
    """Cosines between updates (Property 1), of random adapters and of trained ones."""

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
        """The readable part of its name."""
        return f"orthogonality-s{self.seed}"


class Cell(Strict):
    """A place in an experiment's table: a point, its model, and the factors' levels."""

    point: str
    model: str = ""
    """The name of a model of a `Score` point; empty for other points."""
    factors: dict[str, str | float | int | None] = Field(default_factory=dict)
    seed: int
    tasks: tuple[str, ...] = ()
    """The tasks whose measurements are used; empty for all."""


class Collect(Strict):
    """An experiment: its cells, collected in `metrics/experiments/NAME.json`."""

    kind: Literal["collect"] = "collect"
    experiment: str
    cells: tuple[Cell, ...]
    info: dict[str, Any]
    base: str = ""
    """The folder of the base in `metrics/experiments/bases`; empty for the first base."""

    @model_serializer(mode="wrap")
    def _without_first_base(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `base` out for the first base, so that its settings stay as they were."""
        values: dict[str, Any] = dump(self)
        if not values.get("base"):
            values.pop("base", None)
        return values

    @property
    def path(self) -> Path:
        """The file of the experiment's rows."""
        folder = BASES / self.base if self.base else METRICS
        return folder / f"{self.experiment}.json"

    @property
    def parents(self) -> tuple[str, ...]:
        """The points of its cells."""
        return tuple(dict.fromkeys(cell.point for cell in self.cells))

    @property
    def label(self) -> str:
        """The experiment, and its base if that is not the first."""
        return f"{self.experiment}-on-{self.base}" if self.base else self.experiment


Point = Train | Score | SparsityMap | Orthogonality | Collect
_POINT: TypeAdapter[Point] = TypeAdapter(Annotated[Point, Field(discriminator="kind")])


def name_of(point: Point) -> str:
    """Return a point's name: label and digest; for an experiment its label."""
    if isinstance(point, Collect):
        return point.label
    return f"{point.label}-{digest(point.model_dump(mode='json'))[:10]}"


def folder_of(name: str) -> Path:
    """Return the folder of a point's files."""
    return ARTIFACTS / name


class Points:
    """Points by name, each after its parents."""

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
        InputError: there is no point of that name, or its settings are invalid.
    """
    known = _read(path)
    if name not in known:
        raise InputError(f"{path}: {unknown('point', name, known)}")
    return _parsed(known[name], name, path)


def _read(path: Path) -> Mapping[str, Any]:
    """Return the settings of all points; a process that runs many points reads the file once."""
    if not path.is_file():
        return cast(Mapping[str, Any], read_json(path))  # says what is wrong
    status = path.stat()
    return _unchanged(path, path.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _unchanged(path: Path, where: Path, changed: int, size: int) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], read_json(path))


def load_all(path: Path = POINTS) -> dict[str, Point]:
    """Read all points by name.

    Raises:
        InputError: the settings of a point are invalid.
    """
    return {name: _parsed(values, name, path) for name, values in read_json(path).items()}


def _parsed(values: Any, name: str, path: Path) -> Point:
    try:
        return _POINT.validate_python(values)
    except ValidationError as error:
        raise InputError(f"{path}: {name}: {first_error(error, Train)}") from None
