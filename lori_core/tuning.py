"""Training by the methods that LoRI is compared with, on the same data, loss and engine."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lori_core import finite, methods, peft_names
from lori_core.adapter import Adapter, Module, check_base
from lori_core.config import HOW, TrainingSection
from lori_core.errors import AdapterError
from lori_core.files import digest
from lori_core.methods import METHODS, AdaloraOptions
from lori_core.session import (
    Measure,
    Session,
    checkpoint_folder,
    depends_on,
    training_rows,
)
from lori_core.stage_dependencies import TUNING
from lori_core.tracking import RunTracker
from lori_core.training import Recipe, TrainingResult, train, trainable
from lori_core.tuned import Tuned

#: A and B, float32, by module.
Factors = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Tuning:
    """What one training run by a method is, besides base and data.

    Attributes:
        stage: the pipeline stage's name; checkpoints are kept under it.
        task: whose examples are learned.
        method: one of `METHODS` except LoRI's.
        options: the method's, as a user wrote them.
        section: learning rate and the like.
        seed: draws what begins at random, and orders the batches.
        start: a low-rank adapter to go on from.
    """

    stage: str
    task: str
    method: str
    options: Mapping[str, Any]
    section: TrainingSection
    seed: int
    start: Adapter | None = None


def tune(
    session: Session, tuning: Tuning, tracker: RunTracker, measure: Measure | None = None
) -> tuple[Adapter | Tuned, TrainingResult]:
    """Train a model by a method; the session's base is changed and not to be used afterwards.

    Returns:
        An adapter where the result is some B @ A, else what the method trained; and what the run
        did.

    Raises:
        ConfigError: for options that the method does not have.
        AdapterError: for a start that the method cannot go on from.
        DataError: if the task has no training examples with a target.
        DivergedError: at a loss or gradient that is not finite, or values that end so.
    """
    lori = session.params.lori
    chosen = methods.options(tuning.method, tuning.options, f"tasks.{tuning.task}.method")
    rows, data = training_rows(session, tuning.task, tuning.section)
    if isinstance(chosen, AdaloraOptions) and chosen.total_steps is None:
        chosen = chosen.model_copy(update={"total_steps": _steps(len(rows), tuning.section)})
    if tuning.section.lora_alpha is not None:
        lori = lori.model_copy(update={"lora_alpha": tuning.section.lora_alpha})
    compute = session.model.dtype
    with _seeded(tuning.seed, tuning.task):
        model = methods.build(tuning.method, session.model, lori, chosen)
    for parameter in model.parameters():
        if parameter.requires_grad:  # trained in float32, computed with in the base's precision
            parameter.data = parameter.data.float()
    if tuning.start is not None:
        check_base(tuning.start, session.base, f"{tuning.method}: the adapter to go on from")
        _begin_at(model, tuning.start, tuning.method)
    first = _factors(model) if tuning.method == "pissa" else {}
    if tuning.section.gradient_checkpointing:
        model.enable_input_require_grads()
    facts = {
        "method": tuning.method,
        "options": chosen.model_dump(),
        "seed": tuning.seed,
        "section": tuning.section.model_dump(exclude=HOW),
        "parents": _parents(tuning.start),
    }
    depends = depends_on(session, facts, data, TUNING)
    key = digest(depends)
    train_recipe = recipe(tuning.method, model, chosen, compute)
    result = train(
        model,
        rows,
        tuning.section,
        pad_token_id=session.tokenizer.pad_token_id,
        seed=tuning.seed,
        checkpoints=checkpoint_folder(tuning.stage, key),
        tracker=tracker,
        what=tuning.stage,
        recipe=train_recipe,
    )
    if measure is not None:
        with train_recipe.computing(model.device):
            measure(model.eval())
    info = {
        "task": tuning.task,
        "stage": tuning.stage,
        "method": tuning.method,
        "content_key": key,
        "parents": facts["parents"],
        "depends": depends,
        **session.said(),
    }
    finite.check_trained(trainable(model).items(), tuning.stage)
    if METHODS[tuning.method].result == "low-rank":
        return _adapter(session, model, tuning.method, first, info), result
    return _tuned(session, model, tuning.method, compute, info), result


def recipe(method: str, model: Any, chosen: Any, compute: torch.dtype) -> Recipe:
    """Return how a method is trained where that is not AdamW on the loss.

    LoRA+ gives B a larger learning rate; AdaLoRA moves its ranks after each step and pulls its
    factors towards orthogonality, `orth_reg_weight · mean ‖PᵀP - I‖_F`, as PEFT does.
    """
    autocast = None if compute == torch.float32 else compute
    if method == "lora-plus":
        return Recipe(autocast=autocast, optimizer=_loraplus(chosen.lr_ratio))
    if method == "adalora":
        # Its running importances are no part of a checkpoint: an interrupted run starts afresh.
        return Recipe(
            autocast=autocast,
            penalty=lambda: _orthogonality(model),
            after_step=model.base_model.update_and_allocate,
            resumable=False,
        )
    return Recipe(autocast=autocast)


def _loraplus(ratio: float) -> Callable[[Any, float], torch.optim.Optimizer]:
    def create(model: Any, learning_rate: float) -> torch.optim.Optimizer:
        from peft.optimizers import create_loraplus_optimizer

        optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=learning_rate, loraplus_lr_ratio=ratio, weight_decay=0.0
        )
        return optimizer

    return create


def _orthogonality(model: Any) -> Tensor:
    weight = model.peft_config[peft_names.ADAPTER].orth_reg_weight
    found = []
    for layer in peft_names.lora_layers(model).values():
        A, B = layer.lora_A[peft_names.ADAPTER], layer.lora_B[peft_names.ADAPTER]
        unit = torch.eye(len(A), device=A.device)
        found += [torch.linalg.matrix_norm(g - unit) for g in (A @ A.T, B.T @ B)]
    penalty: Tensor = weight * torch.stack(found).mean()
    return penalty


def _steps(examples: int, section: TrainingSection) -> int:
    """Return the optimizer steps of a run."""
    batch = section.batch_size * section.gradient_accumulation_steps
    steps = math.ceil(math.ceil(examples / batch) * section.epochs)
    return min(steps, section.max_steps or steps)


@contextmanager
def _seeded(seed: int, task: str) -> Iterator[None]:
    """Let what is drawn inside depend on (seed, task) alone, and leave torch's state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(int(digest([seed, task])[:15], 16))
        yield


def _begin_at(model: Any, start: Adapter, method: str) -> None:
    layers = peft_names.lora_layers(model)
    if list(layers) != list(start.modules):
        raise AdapterError(f"{method}: the adapter to go on from has other modules than the base")
    with torch.no_grad():
        for name, layer in layers.items():
            pairs = (layer.lora_A, start.A(name)), (layer.lora_B, start.B(name))
            for side, values in pairs:
                weight = side[peft_names.ADAPTER].weight
                if weight.shape != values.shape:
                    raise AdapterError(
                        f"{method}: {name} has rank {values.shape} in the adapter to go on from, "
                        f"{tuple(weight.shape)} here; use its rank"
                    )
                weight.copy_(values)
            scaling = layer.scaling[peft_names.ADAPTER]
            if not math.isclose(scaling, start.scaling(name)):
                raise AdapterError(
                    f"{method}: {name} is scaled by {start.scaling(name):g} in the adapter to go "
                    f"on from, by {scaling:g} here; use its lora_alpha"
                )


def _parents(start: Adapter | None) -> list[str]:
    return [] if start is None else [str(start.info.get("content_key"))]


def _factors(model: Any) -> Factors:
    """Return a copy of A and B of each module, float32, on the CPU."""
    found = {}
    for name, layer in peft_names.lora_layers(model).items():
        sides = (layer.lora_A[peft_names.ADAPTER], layer.lora_B[peft_names.ADAPTER])
        # AdaLoRA keeps the matrices themselves, the others linear modules.
        weights: list[Tensor] = [getattr(side, "weight", side) for side in sides]
        A, B = (weight.detach().float().cpu().clone() for weight in weights)
        found[name] = (A, B)
    return found


def _adapter(
    session: Session, model: Any, method: str, first: Factors, info: dict[str, Any]
) -> Adapter:
    """Return what was trained as scaling · B @ A over the untouched base.

    PiSSA took its first B₀ @ A₀ out of the base, so its update is `B @ A - B₀ @ A₀`, of twice the
    rank. AdaLoRA's singular values go into A.
    """
    factors = _factors(model)
    modules: dict[str, Module] = {}
    for name, layer in peft_names.lora_layers(model).items():
        A, B = factors[name]
        scaling = float(layer.scaling[peft_names.ADAPTER])
        if method == "adalora":
            A = A * layer.lora_E[peft_names.ADAPTER].detach().float().cpu()
            scaling /= float(layer.ranknum[peft_names.ADAPTER]) + 1e-5
        if first:
            A, B = torch.cat([A, first[name][0]]), torch.cat([B, -first[name][1]], dim=1)
        factors[name] = (A.contiguous(), B.contiguous())
        rank = len(A)
        modules[name] = Module(A.shape[1], B.shape[0], rank, scaling * rank)
    return Adapter(
        base=session.base,
        modules=modules,
        blocks=(),
        mask=None,
        values={name: B.reshape(-1) for name, (_, B) in factors.items()},
        stored={name: A for name, (A, _) in factors.items()},
        info=info,
        fan_in_fan_out=session.fan_in_fan_out,
        matched_by=session.matched_by,
    )


def _tuned(
    session: Session, model: Any, method: str, compute: torch.dtype, info: dict[str, Any]
) -> Tuned:
    if METHODS[method].result == "weights":
        named = dict(model.named_parameters())
        weights = {n: p.detach().to("cpu", compute).contiguous() for n, p in named.items()}
        return Tuned(session.base, weights, None, info)
    from peft import get_peft_model_state_dict

    with warnings.catch_warnings():
        # VeRA's projections are drawn again from their seed, so a file need not hold them.
        warnings.filterwarnings("ignore", message="Specified to not save vera_A")
        kept = get_peft_model_state_dict(model, save_embedding_layers=False)
    config = peft_names.config_dict(model.peft_config[peft_names.ADAPTER])
    config |= {"base_model_name_or_path": session.base.name, "inference_mode": True}
    tensors = {name: t.detach().cpu().contiguous() for name, t in sorted(kept.items())}
    return Tuned(session.base, tensors, config, info)
