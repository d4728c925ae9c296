"""The interface of training methods, an extension point, and their registry.

A training method is a class with the decorator `training_method`. Its class attributes describe the
method; an instance belongs to one run. All methods share the procedure `tuning.tune`. For an
example of an extension, see `examples/extensions/training_method.py`.
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
    from torch import Tensor, nn

    from lori_core.adapters.adapter import Adapter, ProjectionBlock
    from lori_core.adapters.masks.mask import Mask
    from lori_core.methods.finetuned_model import FinetunedModel
    from lori_core.models.base_identity import BaseIdentity
    from lori_core.training.trainer_overrides import TrainerOverrides


class NoOptions(Strict):
    """Options of a method that has none of its own."""


@dataclass(frozen=True)
class Job:
    """The settings of one run of a method; the base model and the data come separately.

    Attributes:
        lori: rank, target modules and so on; `lora_alpha` is that of this run.
        options: the method's own options, validated.
        section: learning rate, dropout and so on.
        task: the task to learn.
        steps: the number of optimizer steps; None where only the cost is computed.
        blocks: the keys that A is drawn from, for a method that draws it; empty with `stored`.
        stored: A [rank, d_in] by module, for a method that freezes it, if it is not drawn from
            keys.
        mask: the entries of B that may change, for a method with `calibrated_by`.
        start: the low-rank adapter that training starts from, if any.
    """

    lori: LoriSection
    options: Strict
    section: TrainingSection = field(default_factory=TrainingSection)
    task: str = ""
    steps: int | None = None
    blocks: tuple[ProjectionBlock, ...] = ()
    stored: Mapping[str, Tensor] | None = None
    mask: Mask | None = None
    start: Adapter | None = None


@dataclass(frozen=True)
class Provenance:
    """The base model and the run that a training result comes from; stored with the result.

    Attributes:
        base: the identity of the base model.
        dtype: the precision that the base computes in.
        fan_in_fan_out: whether the target modules store their weights as [d_in, d_out].
        matched_by: the names to pass to PEFT as `target_modules`; empty where the last parts of
            the module names match exactly the target modules.
        info: task, stage, method, content key, parents and so on.
    """

    base: BaseIdentity
    dtype: torch.dtype
    fan_in_fan_out: bool
    matched_by: tuple[str, ...]
    info: dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """The cost of a method on a base model.

    Attributes:
        trainable: the number of trained parameters.
        state_bytes: the bytes of their float32 values, gradients and AdamW moments.
        artifact_bytes: the bytes of the saved values (of low-rank updates in `values_dtype`, of
            other results in float32; LoRI-S: plus the entropy of the mask), without headers and
            names.
    """

    trainable: int
    state_bytes: int
    artifact_bytes: int


class TrainingMethod(ABC):
    """A training method; an instance trains one adapter.

    Class attributes:
        name: the method's name in `tasks.<task>.method`.
        label: the method's name in reports and papers.
        about: the parameters that it trains, in one line.
        options: the schema of its options beyond `lori` and `training`.
        result: `low-rank` if it trains an update B @ A, which can be merged and exported; `weights`
            if it trains the whole base; `other` otherwise.
        continues: whether training can start from a low-rank adapter.
        family: methods of one family can start from each other's adapters; None for a method that
            can only start from its own.
        calibrated_by: for a method that trains inside a mask, the method of the calibration run
            that the mask comes from; otherwise None.
        dropout: whether it supports `training.dropout`.
        lean: whether its layers save no inputs for the backward pass
            (`lori_core.training.kernels.lora_linear`).
        keeps_safety: whether it only differs from another method if it starts from a safety
            adapter, or gets safety examples.
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
    keeps_safety: ClassVar[bool] = False

    def __init__(self, job: Job) -> None:
        self.job = job

    @classmethod
    def goes_on_from(cls, other: type[TrainingMethod]) -> bool:
        """Return whether training can start from an adapter that another method trained."""
        related = cls.family is not None and cls.family == other.family
        return cls.continues and (cls is other or related)

    @classmethod
    def fault(cls, lori: LoriSection, chosen: Strict, quantization: str | None) -> str | None:
        """Return why the method cannot train with valid settings of a run; None if it can.

        Args:
            lori: rank, target modules and so on.
            chosen: the method's options, from `options`.
            quantization: that of the base.
        """
        return None

    def safety_share(self) -> float:
        """Return the share of safety examples to mix into the training examples, in [0, 1)."""
        return 0.0

    @abstractmethod
    def attach(self, model: nn.Module) -> Any:
        """Add the trained parameters to a base model in place; the caller seeds torch.

        Args:
            model: the base; may be on the meta device.

        Returns:
            The model; its parameters with `requires_grad` are those that the method trains.

        Raises:
            ConfigError: the base does not have a target module.
            AdapterError: a target module cannot be adapted, or `job.start` does not fit.
        """

    def trainer_overrides(self, model: Any, dtype: torch.dtype) -> TrainerOverrides:
        """Return what the training loop must do other than minimise the loss with AdamW.

        Args:
            model: the model from `attach`, its trained parameters in float32.
            dtype: the precision that the base computes in.
        """
        import torch

        from lori_core.training.trainer_overrides import TrainerOverrides

        return TrainerOverrides(autocast=None if dtype == torch.float32 else dtype)

    @abstractmethod
    def collect(self, model: Any, provenance: Provenance) -> Adapter | FinetunedModel:
        """Return the training result, on the CPU.

        Args:
            model: the trained model from `attach`; what it computes afterwards must be the result,
                because its validation loss is measured then.
            provenance: stored with the result.
        """

    @abstractmethod
    def cost(self, model: nn.Module) -> Cost:
        """Return the method's cost on a base model, which is changed in place.

        Args:
            model: a base on the meta device, which holds shapes and no values.
        """

    def depends(self) -> dict[str, Any]:
        """Return the parts of the job that the result depends on, for the content key.

        Values must be ones that JSON can hold. The caller adds the method's name, `training`, the
        data and the content keys of the adapters that training starts from.
        """
        return {"options": self.job.options.model_dump(), "seed": self.job.lori.seed}


@dataclass(frozen=True)
class Registered(Named):
    """A training method's entry in the registry; `origin` is its extension file, if any.

    Attributes:
        method: the method's class.
    """

    method: type[TrainingMethod]


REGISTERED: Registry[Registered] = Registry("training method", "lori_core.methods.catalogue")


class _Methods(Mapping[str, type[TrainingMethod]]):
    """The classes of the registered methods by name, in order of registration."""

    def __getitem__(self, name: str) -> type[TrainingMethod]:
        return REGISTERED[name].method

    def __iter__(self) -> Iterator[str]:
        return iter(REGISTERED)

    def __len__(self) -> int:
        return len(REGISTERED)


METHODS = _Methods()
_Class = TypeVar("_Class", bound=type[TrainingMethod])


def training_method(method: _Class) -> _Class:
    """Register a training method; a class decorator.

    Raises:
        TakenError: the name is taken.
        ValueError: `name`, `label` or `about` is missing, or the class is defined neither in this
            package nor in an extension file (whose digest is part of the content key).
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
        values: the options as the user wrote them.
        where: the field to name in errors, as `tasks.math`.

    Returns:
        The validated options.

    Raises:
        ConfigError: the method or an option does not exist, or a value is not allowed.
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
