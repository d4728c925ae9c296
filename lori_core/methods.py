"""The fine-tuning methods by name: what each one puts on a base model, and what that costs.

All but LoRI are PEFT's own; LoRI's adapters are attached by `attaching`, and only counted here.
How the others are trained stands in `tuning`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from lori_core.config import LoriSection, Params
from lori_core.errors import ConfigError, unknown
from lori_core.validation import Number, PositiveFloat, PositiveInt, Strict, first_error

if TYPE_CHECKING:
    from torch import nn

#: float32 value, gradient and AdamW's two moments.
STATE_BYTES = 16
#: Stands for the number of steps of a run that is only counted.
UNSCHEDULED = 1000


class NoOptions(Strict):
    """Options of a method that has none beside those of `lori`."""


class VeraOptions(Strict):
    """Options of VeRA."""

    projection_seed: Annotated[int, Field(ge=0)] = 0
    """Draws the one pair of projections that all modules share."""
    d_initial: Number = 0.1
    """What the vector over the rank begins with."""


class Ia3Options(Strict):
    """Options of IA3."""

    feedforward_modules: tuple[str, ...] = ("down_proj",)
    """Targets whose input is scaled; the others' output is."""


class AdaloraOptions(Strict):
    """Options of AdaLoRA."""

    target_rank: PositiveInt | None = None
    """The mean rank at the end; half of `lori.rank` unless given."""
    total_steps: PositiveInt | None = None
    """Optimizer steps over which the budget of ranks is scheduled; those of the run unless given.
    """


class PissaOptions(Strict):
    """Options of PiSSA."""

    iterations: PositiveInt = 4
    """Subspace iterations of the fast SVD that finds the first A and B."""


class LoraPlusOptions(Strict):
    """Options of LoRA+."""

    lr_ratio: Annotated[PositiveFloat, Field(ge=1)] = 16.0
    """How many times A's learning rate B's is."""


Config = Callable[[LoriSection, Any], Any]


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        about: what it does, in a line.
        config: `lori` and the method's options -> PEFT's configuration; None where PEFT has none.
        options: what else can be set.
        frozen: parts of the adapter that stay as they were drawn, by PEFT's name.
        result: `low-rank` if what it trains is some B @ A, which can be merged and exported;
            `other` if it is something else; `weights` if it is the whole base.
        continues: whether it can start from a low-rank adapter that was trained before.
    """

    about: str
    config: Config | None
    options: type[Strict] = NoOptions
    frozen: tuple[str, ...] = ()
    result: Literal["low-rank", "other", "weights"] = "low-rank"
    continues: bool = False


def _lora(**more: Any) -> Config:
    def config(lori: LoriSection, options: Any) -> Any:
        from peft import LoraConfig

        return LoraConfig(r=lori.rank, lora_alpha=lori.lora_alpha, **_common(lori), **more)

    return config


def _pissa(lori: LoriSection, options: PissaOptions) -> Any:
    return _lora(init_lora_weights=f"pissa_niter_{options.iterations}")(lori, options)


def _vera(lori: LoriSection, options: VeraOptions) -> Any:
    from peft import VeraConfig

    return VeraConfig(
        r=lori.rank,
        projection_prng_key=options.projection_seed,
        save_projection=False,
        d_initial=options.d_initial,
        **_common(lori),
    )


def _ia3(lori: LoriSection, options: Ia3Options) -> Any:
    from peft import IA3Config

    inner = options.feedforward_modules
    wanted = [target for target in lori.target_modules if target.rsplit(".", 1)[-1] in inner]
    return IA3Config(feedforward_modules=wanted, **_common(lori))


def _adalora(lori: LoriSection, options: AdaloraOptions) -> Any:
    from peft import AdaLoraConfig

    return AdaLoraConfig(
        init_r=lori.rank,
        target_r=options.target_rank or max(1, lori.rank // 2),
        total_step=options.total_steps or UNSCHEDULED,
        lora_alpha=lori.lora_alpha,
        **_common(lori),
    )


def _common(lori: LoriSection) -> dict[str, Any]:
    return {"target_modules": list(lori.target_modules), "task_type": "CAUSAL_LM"}


METHODS: dict[str, Method] = {
    "full": Method("every weight of the base", None, result="weights"),
    "lora": Method("A and B", _lora(), continues=True),
    "dora": Method("A, B and each output's magnitude", _lora(use_dora=True), result="other"),
    "vera": Method(
        "two vectors around projections that all modules share", _vera, VeraOptions, result="other"
    ),
    "ia3": Method(
        "one factor for each output, or input of the FFN", _ia3, Ia3Options, result="other"
    ),
    "lora-fa": Method("B; A stays random", _lora(), frozen=("lora_A",), continues=True),
    "adalora": Method("an SVD whose rank moves between modules", _adalora, AdaloraOptions),
    "rslora": Method("A and B, scaled by alpha / sqrt(rank)", _lora(use_rslora=True)),
    "pissa": Method("A and B from the base's first singular vectors", _pissa, PissaOptions),
    "lora-plus": Method("A and B; B learns faster", _lora(), LoraPlusOptions, continues=True),
    "lori-d": Method("B; A is a keyed random projection", None, continues=True),
    "lori-s": Method("B inside the task's mask", None, continues=True),
}
#: The methods that this project trains itself.
LORI = ("lori-d", "lori-s")


def check(params: Params) -> None:
    """Refuse a run whose methods do not exist, have other options, or cannot do what is asked.

    Raises:
        ConfigError: naming the task.
    """
    for task, section in params.tasks.items():
        options(section.method_name, section.method_options, f"tasks.{task}.method")
        if section.method_name not in LORI:
            _check_foreign(params, task)
    for name in params.merge:
        for task in params.merged_tasks(name):
            method = params.tasks[task].method_name
            if METHODS[method].result != "low-rank":
                fit = [n for n, m in METHODS.items() if m.result == "low-rank"]
                raise ConfigError(
                    f"merge.{name}: task {task} is trained by {method}, whose result is no "
                    f"low-rank update and cannot be merged (methods that can: {', '.join(fit)})"
                )
    _check_continual(params)
    for where, name in params.experiments.named_methods():
        options(name, params.experiments.options.get(name, {}), where)


def _check_foreign(params: Params, task: str) -> None:
    method, section = params.tasks[task].method_name, params.phase(task, "training")
    if params.model.quantization and METHODS[method].result == "weights":
        raise ConfigError(
            f"tasks.{task}.method: {method!r} trains every weight, and model.quantization is "
            f"{params.model.quantization!r}; only an adapter can be trained on a quantised base"
        )
    if section.dropout:
        raise ConfigError(
            f"tasks.{task}: dropout {section.dropout} with the method {method!r}; only LoRI's "
            "methods have it here (set dropout to 0)"
        )


def _check_continual(params: Params) -> None:
    safety = params.continual.safety_task
    if safety is None:
        return
    before = params.tasks[safety].method_name
    for task in params.continual.tasks:
        method = params.tasks[task].method_name
        alike = method == before or {method, before} <= set(LORI)
        if not (METHODS[method].continues and alike):
            fit = [name for name, m in METHODS.items() if m.continues]
            raise ConfigError(
                f"continual.tasks: {task} is trained by {method}, {safety} by {before}; both must "
                f"have one method, of: {', '.join(fit)}; or leave {task} out of continual.tasks"
            )


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


def build(name: str, model: nn.Module, lori: LoriSection, chosen: Strict) -> Any:
    """Put a PEFT method on a base model in place, or free all of it; mark what is trained.

    Args:
        name: one of `METHODS` except LoRI's, which `attaching` builds.
        model: the base, also on the meta device (but PiSSA decomposes real weights).
        lori: rank, alpha and target modules.
        chosen: from `options`.

    Returns:
        The model whose parameters with `requires_grad` are what the method trains.

    Raises:
        ConfigError: for a target module that the base does not have.
        AdapterError: for one that PEFT cannot adapt.
    """
    from lori_core import peft_names

    method = METHODS[name]
    if name == "full":
        return model.requires_grad_(True)
    if method.config is None:
        raise ValueError(f"{name} is attached by lori_core.attaching")
    modules = peft_names.target_shapes(model, lori.target_modules)
    with warnings.catch_warnings():
        # VeRA's projections are drawn again from their seed, so a file need not hold them.
        warnings.filterwarnings("ignore", message="Specified to not save vera_A")
        config = method.config(lori, chosen)
    wrapped = peft_names.injected(model, config, modules)
    for parameter, values in wrapped.named_parameters():
        if any(part in parameter.split(".") for part in method.frozen):
            values.requires_grad_(False)
    return wrapped


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


def cost(name: str, model: nn.Module, lori: LoriSection, chosen: Strict) -> Cost:
    """Return what a method costs; the model is changed, so give each call its own.

    Args:
        name: one of `METHODS`.
        model: a base on the meta device, which holds shapes and no values.
        lori: rank, alpha, targets, and LoRI's sparsity.
        chosen: from `options`.
    """
    if name.startswith("lori-"):
        return _lori_cost(model, lori, sparse=name == "lori-s")
    if name == "pissa":  # the same shapes as LoRA, whose start needs no weights
        name, chosen = "lora", NoOptions()
    wrapped = build(name, model, lori, chosen)
    trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    return Cost(trainable, STATE_BYTES * trainable, 4 * _kept(name, wrapped))


def _kept(name: str, wrapped: Any) -> int:
    from peft import get_peft_model_state_dict

    if name == "full":
        return sum(p.numel() for p in wrapped.parameters())
    kept = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return sum(values.numel() for values in kept.values())


def _lori_cost(model: nn.Module, lori: LoriSection, *, sparse: bool) -> Cost:
    import torch

    from lori_core import peft_names

    shapes = peft_names.target_shapes(model, lori.target_modules)
    total = lori.rank * sum(d_out for _, d_out in shapes.values())
    each = torch.finfo(getattr(torch, lori.values_dtype)).bits // 8
    if not sparse:
        return Cost(total, STATE_BYTES * total, each * total)
    kept = total - math.floor(lori.exact_sparsity() * total)
    return Cost(kept, STATE_BYTES * kept, each * kept + math.ceil(_entropy(kept, total) / 8))


def _entropy(kept: int, total: int) -> float:
    """Return the bits that a mask of `kept` among `total` needs at least, in the limit."""
    shares = [part / total for part in (kept, total - kept) if part]
    return -total * sum(share * math.log2(share) for share in shares)
