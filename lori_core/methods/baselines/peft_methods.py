"""The training methods that LoRI is compared with: PEFT's own, and training all weights."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from lori_core.config.validation import Number, PositiveFloat, PositiveInt, Strict
from lori_core.methods.training_method import (
    STATE_BYTES,
    Cost,
    Job,
    Made,
    TrainingMethod,
    training_method,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lori_core.adapters.adapter import Adapter
    from lori_core.methods.finetuned_model import FinetunedModel
    from lori_core.methods.peft_layers import Factors
    from lori_core.training.trainer_overrides import TrainerOverrides

#: Stands for the number of steps of a run that is only counted.
UNSCHEDULED = 1000


class PeftMethod(TrainingMethod):
    """A method of PEFT, put on the base by PEFT's own configuration.

    Class attributes:
        frozen: parts of the adapter that stay as they were drawn, by PEFT's name.
    """

    frozen: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def config(self) -> Any:
        """Return PEFT's configuration."""

    def common(self) -> dict[str, Any]:
        """Return what all of PEFT's configurations have."""
        targets = list(self.job.lori.target_modules)
        return {"target_modules": targets, "task_type": "CAUSAL_LM"}

    def attach(self, model: nn.Module) -> Any:
        """Put PEFT's layers on the base; a start gives them their values."""
        from lori_core.methods import peft_layers

        wrapped = peft_layers.inject(model, self.job.lori, self.config, self.frozen)
        if self.job.start is not None:
            peft_layers.begin_at(wrapped, self.job.start, self.name)
        return wrapped

    def collect(self, model: Any, made: Made) -> Adapter | FinetunedModel:
        """Return what PEFT saves, or a low-rank adapter where the result is some B @ A."""
        from lori_core.methods import peft_layers

        if self.result == "low-rank":
            return peft_layers.adapter(self.factors(model), made)
        return peft_layers.tuned(model, made)

    def factors(self, model: Any) -> Factors:
        """Return A, B and the scaling of each module of a low-rank result, float32, on the CPU."""
        from lori_core.methods import peft_layers

        return peft_layers.factors(model)

    def cost(self, model: nn.Module) -> Cost:
        """Count what PEFT trains, and what it saves."""
        from peft import get_peft_model_state_dict

        wrapped = self.attach(model)
        trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
        kept = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        return Cost(
            trainable, STATE_BYTES * trainable, 4 * sum(values.numel() for values in kept.values())
        )


@training_method
class Full(TrainingMethod):
    """Full fine-tuning."""

    name = "full"
    label = "FFT"
    about = "every weight of the base"
    result = "weights"

    def attach(self, model: nn.Module) -> Any:
        """Free all weights."""
        return model.requires_grad_(True)

    def collect(self, model: Any, made: Made) -> FinetunedModel:
        """Return every weight in the base's precision."""
        from lori_core.methods.finetuned_model import FinetunedModel

        named = dict(model.named_parameters())
        weights = {n: p.detach().to("cpu", made.dtype).contiguous() for n, p in named.items()}
        return FinetunedModel(made.base, weights, None, made.info)

    def cost(self, model: nn.Module) -> Cost:
        """Count every weight."""
        total = sum(p.numel() for p in model.parameters())
        return Cost(total, STATE_BYTES * total, 4 * total)


@training_method
class Lora(PeftMethod):
    """LoRA (arXiv:2106.09685)."""

    name = "lora"
    label = "LoRA"
    about = "A and B"
    continues = True

    def config(self, **more: Any) -> Any:
        """Return a `LoraConfig`; `more` are further fields of it."""
        from peft import LoraConfig

        lori = self.job.lori
        return LoraConfig(r=lori.rank, lora_alpha=lori.lora_alpha, **self.common(), **more)


@training_method
class Dora(Lora):
    """DoRA (arXiv:2402.09353)."""

    name = "dora"
    label = "DoRA"
    about = "A, B and each output's magnitude"
    result = "other"
    continues = False

    def config(self, **more: Any) -> Any:
        """Return a `LoraConfig` with magnitudes."""
        return super().config(use_dora=True, **more)


class VeraOptions(Strict):
    """Options of VeRA."""

    projection_seed: Annotated[int, Field(ge=0)] = 0
    """Draws the one pair of projections that all modules share."""
    d_initial: Number = 0.1
    """What the vector over the rank begins with."""


@training_method
class Vera(PeftMethod):
    """VeRA (arXiv:2310.11454)."""

    name = "vera"
    label = "VeRA"
    about = "two vectors around projections that all modules share"
    options = VeraOptions
    result = "other"

    def config(self) -> Any:
        """Return a `VeraConfig`."""
        from peft import VeraConfig

        chosen: Any = self.job.options
        return VeraConfig(
            r=self.job.lori.rank,
            projection_prng_key=chosen.projection_seed,
            save_projection=False,
            d_initial=chosen.d_initial,
            **self.common(),
        )


class Ia3Options(Strict):
    """Options of IA3."""

    feedforward_modules: tuple[str, ...] = ("down_proj",)
    """Targets whose input is scaled; the others' output is."""


@training_method
class Ia3(PeftMethod):
    """IA3 (arXiv:2205.05638)."""

    name = "ia3"
    label = "IA3"
    about = "one factor for each output, or input of the FFN"
    options = Ia3Options
    result = "other"

    def config(self) -> Any:
        """Return an `IA3Config`."""
        from peft import IA3Config

        chosen: Any = self.job.options
        inner, targets = chosen.feedforward_modules, self.job.lori.target_modules
        wanted = [target for target in targets if target.rsplit(".", 1)[-1] in inner]
        return IA3Config(feedforward_modules=wanted, **self.common())


@training_method
class LoraFa(Lora):
    """LoRA-FA (arXiv:2308.03303)."""

    name = "lora-fa"
    label = "LoRA-FA"
    about = "B; A stays random"
    frozen = ("lora_A",)


class AdaloraOptions(Strict):
    """Options of AdaLoRA."""

    target_rank: PositiveInt | None = None
    """The mean rank at the end; half of `lori.rank` unless given."""
    total_steps: PositiveInt | None = None
    """Optimizer steps over which the budget of ranks is scheduled; those of the run unless given.
    """


@training_method
class Adalora(PeftMethod):
    """AdaLoRA (arXiv:2303.10512)."""

    name = "adalora"
    label = "AdaLoRA"
    about = "an SVD whose rank moves between modules"
    options = AdaloraOptions

    def __init__(self, job: Job) -> None:
        chosen: Any = job.options
        self.total_steps = chosen.total_steps or job.steps or UNSCHEDULED
        super().__init__(job)

    def config(self) -> Any:
        """Return an `AdaLoraConfig`."""
        from peft import AdaLoraConfig

        chosen: Any = self.job.options
        lori = self.job.lori
        return AdaLoraConfig(
            init_r=lori.rank,
            target_r=chosen.target_rank or max(1, lori.rank // 2),
            total_step=self.total_steps,
            lora_alpha=lori.lora_alpha,
            **self.common(),
        )

    def recipe(self, model: Any, dtype: torch.dtype) -> TrainerOverrides:
        """Move ranks after each step, and pull the factors towards orthogonality, as PEFT does.

        PEFT's running importances are in no checkpoint: an interrupted run starts afresh.
        """
        from dataclasses import replace

        from lori_core.methods import peft_layers

        return replace(
            super().recipe(model, dtype),
            penalty=lambda: peft_layers.orthogonality(model),
            after_step=model.base_model.update_and_allocate,
            resumable=False,
        )

    def factors(self, model: Any) -> Factors:
        """Return A with the singular values in it, and B."""
        from lori_core.methods import peft_layers

        return peft_layers.svd_factors(model)

    def depends(self) -> dict[str, Any]:
        """Return also over how many steps the ranks are scheduled."""
        return super().depends() | {"total_steps": self.total_steps}


@training_method
class Rslora(Lora):
    """rsLoRA (arXiv:2312.03732)."""

    name = "rslora"
    label = "rsLoRA"
    about = "A and B, scaled by alpha / sqrt(rank)"
    continues = False

    def config(self, **more: Any) -> Any:
        """Return a `LoraConfig` with the scaling of rsLoRA."""
        return super().config(use_rslora=True, **more)


class PissaOptions(Strict):
    """Options of PiSSA."""

    iterations: PositiveInt = 4
    """Subspace iterations of the fast SVD that finds the first A and B."""


@training_method
class Pissa(Lora):
    """PiSSA (arXiv:2404.02948)."""

    name = "pissa"
    label = "PiSSA"
    about = "A and B from the base's first singular vectors"
    options = PissaOptions
    continues = False

    def config(self, **more: Any) -> Any:
        """Return a `LoraConfig` that begins at the base's first singular vectors."""
        chosen: Any = self.job.options
        return super().config(init_lora_weights=f"pissa_niter_{chosen.iterations}", **more)

    def attach(self, model: nn.Module) -> Any:
        """Put A₀ and B₀ on the base, whose weights lose B₀ @ A₀."""
        wrapped = super().attach(model)
        self.first = super().factors(wrapped)
        return wrapped

    def factors(self, model: Any) -> Factors:
        """Return the update of the untouched base, `B @ A - B₀ @ A₀`, of twice the rank."""
        from lori_core.methods import peft_layers

        return peft_layers.without(super().factors(model), self.first)

    def cost(self, model: nn.Module) -> Cost:
        """Count LoRA's: the shapes are the same, and they need no weights to start from."""
        return Lora(self.job).cost(model)


class LoraPlusOptions(Strict):
    """Options of LoRA+."""

    lr_ratio: Annotated[PositiveFloat, Field(ge=1)] = 16.0
    """How many times A's learning rate B's is."""


@training_method
class LoraPlus(Lora):
    """LoRA+ (arXiv:2402.12354)."""

    name = "lora-plus"
    label = "LoRA+"
    about = "A and B; B learns faster"
    options = LoraPlusOptions

    def recipe(self, model: Any, dtype: torch.dtype) -> TrainerOverrides:
        """Give B a larger learning rate."""
        from dataclasses import replace

        from lori_core.methods import peft_layers

        chosen: Any = self.job.options
        optimizer = peft_layers.loraplus(chosen.lr_ratio)
        return replace(super().recipe(model, dtype), optimizer=optimizer)
