"""Training methods as an extension point: the interface of one, and the registry of all.

A method is one class with the decorator `training_method`. Its class attributes say what there is
to know about it without training; an instance belongs to one run. `tuning.tune` is the procedure
that all methods share. See `examples/extensions/training_method.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import ValidationError

from lori_core.config import LoriSection, TrainingSection
from lori_core.config.validation import Strict, first_error
from lori_core.core.errors import ConfigError, unknown
from lori_core.registries.registry import Named, Registry, current_extension

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lori_core.adapters.adapter import Adapter, ProjectionBlock
    from lori_core.adapters.masks.mask import Mask
    from lori_core.methods.finetuned_model import FinetunedModel
    from lori_core.models.base_identity import BaseIdentity
    from lori_core.training.trainer_overrides import TrainerOverrides

#: float32 value, gradient and AdamW's two moments.
STATE_BYTES = 16


class NoOptions(Strict):
    """Options of a method that has none beside those of `lori`."""


@dataclass(frozen=True)
class Job:
    """What one run of a method is about, besides the base model and the data.

    Attributes:
        lori: rank, target modules and the rest; `lora_alpha` is that of this run.
        options: the method's own, validated.
        section: learning rate, dropout and the like.
        task: whose examples are learned.
        steps: how many optimizer steps the run has; None where it is only counted.
        blocks: the key that A is drawn from, for a method that draws it.
        mask: the entries of B that may change, for a method that `masked` says needs one.
        start: the low-rank adapter to go on from.
    """

    lori: LoriSection
    options: Strict
    section: TrainingSection = field(default_factory=TrainingSection)
    task: str = ""
    steps: int | None = None
    blocks: tuple[ProjectionBlock, ...] = ()
    mask: Mask | None = None
    start: Adapter | None = None


@dataclass(frozen=True)
class Made:
    """What an adapter keeps about the base it was trained on, and about its run.

    Attributes:
        base: the base model.
        dtype: the precision that the base is computed in.
        fan_in_fan_out: whether the base keeps its weights as [d_in, d_out].
        matched_by: the names by which PEFT finds the modules, where their last parts mean others.
        info: task, stage, method, content key, parents: where the adapter came from.
    """

    base: BaseIdentity
    dtype: torch.dtype
    fan_in_fan_out: bool
    matched_by: tuple[str, ...]
    info: dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a method costs on a base.

    Attributes:
        trainable: the numbers that are trained.
        state_bytes: their float32 values, gradients and AdamW moments.
        artifact_bytes: what a result must keep in float32 (LoRI: in `values_dtype`, and the mask
            at its entropy); headers and names are left out.
    """

    trainable: int
    state_bytes: int
    artifact_bytes: int


class TrainingMethod(ABC):
    """One training method; an instance trains one adapter.

    Class attributes:
        name: what `tasks.<task>.method` says.
        label: what reports and papers call it.
        about: what it trains, in a line.
        options: what can be set besides `lori` and `training`.
        result: `low-rank` if what it trains is some B @ A, which can be merged and exported;
            `other` if it is something else; `weights` if it is the whole base.
        continues: whether it can start from a low-rank adapter that was trained before.
        family: methods of one family can go on from each other's adapters; None for a method that
            goes on from its own alone.
        calibrated_by: the method that trains the adapter which the mask is taken from, for one that
            trains inside a mask; None for the others.
        dropout: whether it follows `training.dropout`.
        lean: whether its layers keep no inputs for the backward pass
            (`lori_core.training.kernels.lora_linear`).
    """

    name: ClassVar[str]
    label: ClassVar[str]
    about: ClassVar[str]
    options: ClassVar[type[Strict]] = NoOptions
    result: ClassVar[Literal["low-rank", "other", "weights"]] = "low-rank"
    continues: ClassVar[bool] = False
    family: ClassVar[str | None] = None
    calibrated_by: ClassVar[str | None] = None
    dropout: ClassVar[bool] = False
    lean: ClassVar[bool] = False

    def __init__(self, job: Job) -> None:
        self.job = job

    @classmethod
    def goes_on_from(cls, other: type[TrainingMethod]) -> bool:
        """Say whether it can start from what another method trained."""
        related = cls.family is not None and cls.family == other.family
        return cls.continues and (cls is other or related)

    @abstractmethod
    def attach(self, model: nn.Module) -> Any:
        """Put what is trained on a base model, in place; random draws are seeded by the caller.

        Args:
            model: the base, also on the meta device.

        Returns:
            The model whose parameters with `requires_grad` are what the method trains.

        Raises:
            ConfigError: for a target module that the base does not have.
            AdapterError: for one that cannot be adapted, or a start that does not fit.
        """

    def recipe(self, model: Any, dtype: torch.dtype) -> TrainerOverrides:
        """Return how the trainer's loop differs from AdamW on the loss.

        Args:
            model: from `attach`, its trained parameters in float32.
            dtype: the precision that the base is computed in.
        """
        import torch

        from lori_core.training.trainer_overrides import TrainerOverrides

        return TrainerOverrides(autocast=None if dtype == torch.float32 else dtype)

    @abstractmethod
    def collect(self, model: Any, made: Made) -> Adapter | FinetunedModel:
        """Return what was trained, on the CPU."""

    @abstractmethod
    def cost(self, model: nn.Module) -> Cost:
        """Return what the method costs on a base, which is changed.

        Args:
            model: a base on the meta device, which holds shapes and no values.
        """

    def depends(self) -> dict[str, Any]:
        """Return what of the job decides the result, as JSON can hold it, for the content key.

        The method's name, `training`, the data and the adapters it starts from are added to it.
        """
        return {"options": self.job.options.model_dump(), "seed": self.job.lori.seed}


@dataclass(frozen=True)
class Registered(Named):
    """A training method's entry; `origin` says which extension file it is from.

    Attributes:
        method: its class.
    """

    method: type[TrainingMethod]


REGISTERED: Registry[Registered] = Registry("training method", "lori_core.methods.catalogue")


class _Methods(Mapping[str, type[TrainingMethod]]):
    """The classes of the registered methods by name, in the order in which they were registered."""

    def __getitem__(self, name: str) -> type[TrainingMethod]:
        return REGISTERED[name].method

    def __iter__(self) -> Iterator[str]:
        return iter(REGISTERED)

    def __len__(self) -> int:
        return len(REGISTERED)


METHODS = _Methods()
_Class = TypeVar("_Class", bound=type[TrainingMethod])


def training_method(method: _Class) -> _Class:
    """Register a training method; a decorator of its class.

    Raises:
        TakenError: the name is taken.
        ValueError: a name, label or description is missing, or the class is neither of this
            package nor of an extension file, whose content would be in the content key.
    """
    where = f"training method {method.__module__}.{method.__qualname__}"
    for fact in ("name", "label", "about"):
        if not method.__dict__.get(fact):
            raise ValueError(f"{where}: has no {fact}; give the class one, a text")
    if current_extension() is None and method.__module__.partition(".")[0] != "lori_core":
        raise ValueError(
            f"{where}: stands in no extension file; name its file under `extensions` in params.yaml"
        )
    REGISTERED.add(Registered(method.name, method.label, method.about, current_extension(), method))
    return method


def options(name: str, values: Mapping[str, Any], where: str) -> Strict:
    """Check a method's options.

    Args:
        name: one of `METHODS`.
        values: as a user wrote them.
        where: the field to name in errors, as `tasks.math`.

    Raises:
        ConfigError: for a method or an option that does not exist, or a value that does not suit.
    """
    if name not in METHODS:
        raise ConfigError(f"{where}: {unknown('method', name, METHODS)}")
    kind = METHODS[name].options
    if values and kind is NoOptions:
        raise ConfigError(f"{where}: {name} has no options, got {', '.join(values)}")
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(first_error(error, kind, where)) from None
