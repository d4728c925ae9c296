"""Register this package's training methods, and check that a run can use the methods it names.

Importing this module fills the registry `METHODS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lori_core.methods.baselines import peft_methods  # registers its methods

# isort: split
# LoRI's methods are registered last, so that tables and figures show them last.
from lori_core.config import LoriSection, MethodChoice, Params
from lori_core.config.training import STATE_BYTES
from lori_core.config.training_overrides import Phase
from lori_core.config.validation import Strict
from lori_core.core.errors import ConfigError
from lori_core.methods.lori import lori_methods  # noqa: F401

# isort: split
from lori_core.methods.baselines import keeping_safety  # noqa: F401
from lori_core.methods.training_method import METHODS, Cost, Job, NoOptions, options

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "BUILT_IN",
    "KEEPING",
    "METHODS",
    "STATE_BYTES",
    "Cost",
    "NoOptions",
    "build",
    "check",
    "cost",
    "options",
    "safety_share",
]

#: The methods of this package that train on one task alone; `KEEPING` follow a safety adapter.
BUILT_IN = tuple(
    n
    for n, m in METHODS.items()
    if m.__module__.startswith(f"{__package__}.") and not m.keeps_safety
)
KEEPING = tuple(n for n, m in METHODS.items() if m.keeps_safety)


def check(params: Params) -> None:
    """Refuse a run whose methods do not exist, lack an option, or cannot do what the run needs.

    Raises:
        ConfigError: names the field of params.yaml.
    """
    for task in params.tasks:
        for phase in _phases(params, task):
            _check_training(params, task, phase)
    if params.continual.method is not None:  # also where `continual.tasks` is empty
        options(*MethodChoice.of(params.continual.method, "continual.method"))
    for name in params.merge:
        phase = "continual" if params.merge[name].stage == "continual" else "training"
        for task in params.merged_tasks(name):
            method = params.method(task, phase).name
            if METHODS[method].result != "low-rank":
                fit = [n for n, m in METHODS.items() if m.result == "low-rank"]
                raise ConfigError(
                    f"merge.{name}: task {task} is trained by {method}, whose result is no "
                    f"low-rank update and cannot be merged (methods that can: {', '.join(fit)})"
                )
    _check_continual(params)
    for where, name in params.experiments.named_methods():
        options(name, params.experiments.options.get(name, {}), where)


def _phases(params: Params, task: str) -> tuple[Phase, ...]:
    """Return the phases in which a task is trained by a method that the user chose."""
    return ("training", "continual") if task in params.continual.tasks else ("training",)


def _check_training(params: Params, task: str, phase: Phase) -> None:
    method, values, where = params.method(task, phase)
    chosen = options(method, values, where)
    if fault := METHODS[method].fault(params.lori, chosen, params.model.quantization):
        raise ConfigError(f"{where}: {method}: {fault}")
    if params.model.quantization and METHODS[method].result == "weights":
        raise ConfigError(
            f"{where}: {method!r} trains every weight, and model.quantization is "
            f"{params.model.quantization!r}; only an adapter can be trained on a quantised base"
        )
    if (dropout := params.phase(task, phase).dropout) and not METHODS[method].dropout:
        fit = [name for name, m in METHODS.items() if m.dropout]
        raise ConfigError(
            f"tasks.{task}: dropout {dropout} with the method {method!r}; only "
            f"{', '.join(fit)} have it here (set dropout to 0)"
        )


def _check_continual(params: Params) -> None:
    safety = params.continual.safety_task
    if safety is None:
        return
    before = params.method(safety).name
    for task in params.continual.tasks:
        method, _, where = params.method(task, "continual")
        if not METHODS[method].goes_on_from(METHODS[before]):
            raise ConfigError(_cannot_go_on(task, method, where, safety, before))
        own = params.method(task).name
        if METHODS[method].calibrated_by != METHODS[own].calibrated_by:
            raise ConfigError(
                f"continual.method: {method} {_needs(method)}, and {own}, the method of the task "
                f"{task}, {_needs(own)}; name a method of the same kind, or set it to null"
            )
        _check_alpha(params, task, safety)


def _check_alpha(params: Params, task: str, safety: str) -> None:
    """Refuse another `lora_alpha` than the safety adapter's, whose scaling training goes on with.

    LoRI takes the safety adapter's in place of one that `tasks.<task>.training` sets for the stage
    `train`.
    """
    alpha = params.phase(task, "continual").lora_alpha or params.lori.lora_alpha
    before = params.phase(safety, "training").lora_alpha or params.lori.lora_alpha
    explicit = params.continual.training.get("lora_alpha") is not None
    where = "continual.training" if explicit else f"tasks.{task}.training"
    kind = METHODS[params.method(task, "continual").name]
    if alpha != before and (explicit or issubclass(kind, peft_methods.Lora)):
        raise ConfigError(
            f"{where}.lora_alpha: {alpha}, but continual training goes on from the adapter of "
            f"{safety}, whose lora_alpha is {before}; both must be equal"
        )


def _cannot_go_on(task: str, method: str, where: str, safety: str, before: str) -> str:
    """Return the error of a method that cannot train on top of the safety adapter."""
    if where == "continual.method":
        fit = [name for name, m in METHODS.items() if m.goes_on_from(METHODS[before])]
        return (
            f"continual.method: {method} cannot start from the adapter of {safety}, which {before} "
            f"trains (methods that can: {', '.join(fit) or 'none'}); name one, or set it to null"
        )
    fit = [name for name, m in METHODS.items() if m.continues]
    return (
        f"continual.tasks: {task} is trained by {method}, {safety} by {before}; both must have one "
        f"method, of: {', '.join(fit)}; or leave {task} out of continual.tasks"
    )


def _needs(method: str) -> str:
    return "trains inside a mask" if METHODS[method].calibrated_by else "trains without a mask"


def build(name: str, model: nn.Module, lori: LoriSection, chosen: Strict) -> Any:
    """Add a method's trained parameters to a base model in place.

    Args:
        name: one of `METHODS`.
        model: the base; may be on the meta device (except for PiSSA, which decomposes weights).
        lori: rank, alpha and target modules.
        chosen: the method's options, from `options`.

    Returns:
        The model; its parameters with `requires_grad` are trained.

    Raises:
        ConfigError, AdapterError: as `TrainingMethod.attach`.
    """
    return METHODS[name](Job(lori, chosen)).attach(model)


def cost(name: str, model: nn.Module, lori: LoriSection, chosen: Strict) -> Cost:
    """Return a method's cost on a base model.

    Args:
        name: one of `METHODS`.
        model: a base on the meta device, which holds shapes and no values; changed in place, so
            each call needs its own.
        lori: rank, alpha, target modules, and LoRI's sparsity.
        chosen: the method's options, from `options`.
    """
    return METHODS[name](Job(lori, chosen)).cost(model)


def safety_share(name: str, lori: LoriSection, chosen: Strict) -> float:
    """Return the share of safety examples that a method mixes into a task's, in [0, 1).

    Args:
        name: one of `METHODS`.
        lori: the adapter's settings.
        chosen: the method's options, from `options`.
    """
    return METHODS[name](Job(lori, chosen)).safety_share()
