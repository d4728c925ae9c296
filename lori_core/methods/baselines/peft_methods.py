"""The baselines that LoRI is compared with: PEFT's methods and full fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lori_core.config import LoriSection
from lori_core.config.training import STATE_BYTES
from lori_core.config.validation import Number, PositiveFloat, PositiveInt, Strict
from lori_core.core.errors import ConfigError
from lori_core.methods.baselines.peft_method import PeftMethod
from lori_core.methods.training_method import (
    Cost,
    Job,
    Provenance,
    TrainingMethod,
    training_method,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lori_core.methods.finetuned_model import FinetunedModel
    from lori_core.methods.peft_layers import Factors
    from lori_core.training.trainer_overrides import TrainerOverrides

#: The number of steps assumed where a method is built without a run, to compute its cost.
UNSCHEDULED = 1000


@training_method
class Full(TrainingMethod):
    """Full fine-tuning."""

    name = "full"
    label = "FFT"
    about = "every weight of the base"
    result = "weights"

    def attach(self, model: nn.Module) -> Any:
        """Make all weights trainable."""
        return model.requires_grad_(True)

    def collect(self, model: Any, provenance: Provenance) -> FinetunedModel:
        """Return every weight in the base's precision."""
        from lori_core.methods.finetuned_model import FinetunedModel

        named = dict(model.named_parameters())
        weights = {n: p.detach().to("cpu", provenance.dtype).contiguous() for n, p in named.items()}
        return FinetunedModel(provenance.base, weights, None, provenance.info)

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
        """Return a `LoraConfig` with `more` fields."""
        from peft import LoraConfig

        lori = self.job.lori
        return LoraConfig(r=lori.rank, lora_alpha=lori.lora_alpha, **self.common(), **more)


@training_method
class Dora(Lora):
    """DoRA (arXiv:2402.09353)."""

    name = "dora"
    label = "DoRA"
    about = "A, B and the magnitude of each output"
    result = "other"
    continues = False

    def config(self, **more: Any) -> Any:
        """Return a `LoraConfig` with `use_dora`."""
        return super().config(use_dora=True, **more)


class VeraOptions(Strict):
    """Options of VeRA."""

    projection_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the pair of random projections that all modules share."""
    d_initial: Number = 0.1
    """Initial value of the trained vector d, [rank]."""


@training_method
class Vera(PeftMethod):
    """VeRA (arXiv:2310.11454)."""

    name = "vera"
    label = "VeRA"
    about = "two scaling vectors; all modules share frozen projections"
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
    """Target modules whose input is scaled; of the others, the output is scaled. Names that are
    given here must stand in `lori.target_modules`; of the default, those that do are used."""


@training_method
class Ia3(PeftMethod):
    """IA3 (arXiv:2205.05638)."""

    name = "ia3"
    label = "IA3"
    about = "a scale for each output, or for each input of the FFN"
    options = Ia3Options
    result = "other"

    @classmethod
    def fault(cls, lori: LoriSection, chosen: Any, quantization: str | None) -> str | None:
        """Refuse names of feed-forward modules that are no target modules."""
        for name in chosen.feedforward_modules if chosen.model_fields_set else ():
            if not any(f".{target}".endswith(f".{name}") for target in lori.target_modules):
                return (
                    f"feedforward_modules: {name!r} is not in lori.target_modules "
                    f"({', '.join(lori.target_modules)})"
                )
        return None

    def config(self) -> Any:
        """Return an `IA3Config`."""
        from peft import IA3Config

        chosen: Any = self.job.options
        inner, targets = chosen.feedforward_modules, self.job.lori.target_modules
        wanted = [t for t in targets if any(f".{t}".endswith(f".{name}") for name in inner)]
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
    """Mean rank at the end of training; half of `lori.rank` by default."""
    total_steps: Annotated[PositiveInt, Field(ge=2)] | None = None
    """Optimizer steps of the rank schedule; those of the run by default."""

    def last_rank(self, rank: int) -> int:
        """Return the mean rank at the end of a run that starts from `rank`."""
        return self.target_rank or max(1, rank // 2)


@training_method
class Adalora(PeftMethod):
    """AdaLoRA (arXiv:2303.10512)."""

    name = "adalora"
    label = "AdaLoRA"
    about = "an SVD; ranks are reallocated between modules"
    options = AdaloraOptions

    def __init__(self, job: Job) -> None:
        chosen: Any = job.options
        self.total_steps = chosen.total_steps or job.steps or UNSCHEDULED
        if self.total_steps < 2:
            raise ConfigError(
                f"tasks.{job.task}.method: adalora ranks singular values by earlier steps, so that "
                "it needs 2 optimizer steps or more; this run has 1: raise training.epochs or "
                "training.max_steps"
            )
        super().__init__(job)

    @classmethod
    def fault(cls, lori: LoriSection, chosen: Any, quantization: str | None) -> str | None:
        """Refuse a target rank that is not below the rank at the start."""
        if (target := chosen.last_rank(lori.rank)) < lori.rank:
            return None
        return (
            f"target_rank: {target} must be below lori.rank, {lori.rank}, from which it lowers the "
            "mean rank; raise lori.rank or lower target_rank"
        )

    def config(self) -> Any:
        """Return an `AdaLoraConfig`."""
        from peft import AdaLoraConfig

        chosen: Any = self.job.options
        lori = self.job.lori
        return AdaLoraConfig(
            init_r=lori.rank,
            target_r=chosen.last_rank(lori.rank),
            total_step=self.total_steps,
            lora_alpha=lori.lora_alpha,
            **self.common(),
        )

    def trainer_overrides(self, model: Any, dtype: torch.dtype) -> TrainerOverrides:
        """Return overrides that reallocate ranks after each step and penalise non-orthogonality.

        Checkpoints do not hold PEFT's running importance scores, so an interrupted run starts from
        step 0.
        """
        from lori_core.methods import peft_layers

        return replace(
            super().trainer_overrides(model, dtype),
            penalty=lambda: peft_layers.orthogonality(model),
            after_step=model.base_model.update_and_allocate,
            resumable=False,
        )

    def factors(self, model: Any) -> Factors:
        """Return A, multiplied by the singular values, and B."""
        from lori_core.methods import peft_layers

        return peft_layers.svd_factors(model)

    def depends(self) -> dict[str, Any]:
        """Add the number of steps of the rank schedule."""
        return super().depends() | {"total_steps": self.total_steps}


@training_method
class Rslora(Lora):
    """rsLoRA (arXiv:2312.03732)."""

    name = "rslora"
    label = "rsLoRA"
    about = "A and B, scaled by alpha / sqrt(rank)"
    continues = False

    def config(self, **more: Any) -> Any:
        """Return a `LoraConfig` with `use_rslora`."""
        return super().config(use_rslora=True, **more)


class PissaOptions(Strict):
    """Options of PiSSA."""

    iterations: PositiveInt = 4
    """Subspace iterations of the fast SVD that initialises A and B."""


@training_method
class Pissa(Lora):
    """PiSSA (arXiv:2404.02948)."""

    name = "pissa"
    label = "PiSSA"
    about = "A and B, initialised with the base's top singular vectors"
    options = PissaOptions
    continues = False

    @classmethod
    def fault(cls, lori: LoriSection, chosen: Strict, quantization: str | None) -> str | None:
        """Refuse a quantised base, whose weights PEFT cannot decompose."""
        if quantization is None:
            return None
        return (
            f"it decomposes the base's weights, and model.quantization is {quantization!r}; set it "
            "to null, or choose another method"
        )

    @property
    def values_dtype(self) -> str:
        """float32, as the update is a small difference of large products."""
        return "float32"

    def config(self, **more: Any) -> Any:
        """Return a `LoraConfig` whose A and B start from the base's top singular vectors."""
        chosen: Any = self.job.options
        return super().config(init_lora_weights=f"pissa_niter_{chosen.iterations}", **more)

    def attach(self, model: nn.Module) -> Any:
        """Add layers that start at A₀ and B₀, and subtract the scaled B₀ @ A₀ from the weights."""
        wrapped = super().attach(model)
        self.initial = super().factors(wrapped)
        return wrapped

    def factors(self, model: Any) -> Factors:
        """Return the update of the original base, `B @ A - B₀ @ A₀`, which has twice the rank."""
        from lori_core.methods import peft_layers

        return peft_layers.subtract_initial(super().factors(model), self.initial)

    def cost(self, model: nn.Module) -> Cost:
        """Return LoRA's cost: the shapes are the same, and LoRA decomposes no weights."""
        lori = self.job.lori.model_copy(update={"values_dtype": self.values_dtype})
        return Lora(replace(self.job, lori=lori)).cost(model)


class LoraPlusOptions(Strict):
    """Options of LoRA+."""

    lr_ratio: Annotated[PositiveFloat, Field(ge=1)] = 16.0
    """Learning rate of B divided by that of A."""


@training_method
class LoraPlus(Lora):
    """LoRA+ (arXiv:2402.12354)."""

    name = "lora-plus"
    label = "LoRA+"
    about = "A and B, with a higher learning rate for B"
    options = LoraPlusOptions

    def trainer_overrides(self, model: Any, dtype: torch.dtype) -> TrainerOverrides:
        """Return overrides with an optimizer that gives B a higher learning rate."""
        from lori_core.methods import peft_layers

        chosen: Any = self.job.options
        optimizer = peft_layers.loraplus(chosen.lr_ratio, self.job.section.weight_decay)
        return replace(super().trainer_overrides(model, dtype), optimizer=optimizer)
