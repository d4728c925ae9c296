"""LoRI: train, merge and keep safe many sparse LoRA adapters on one language model.

The Python API is this package's own names, imported when they are first used:

    import lori_core as lori

    params = lori.load_params("params.yaml")
    math = lori.train(params, "math", workspace="work")
    merged = lori.merge([math, "other/peft/folder"], method="ties", density=0.7, out="merged")
    scores = lori.evaluate(merged, tasks=["bundled-math"], limit=100)

An extension imports its decorator from here: `from lori_core import merge_method`.

No engine (Prefect, DVC, MLflow) is imported by this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter
    from lori_core.adapters.masks.importances import Calibrated
    from lori_core.api import Score, evaluate, export, load_adapter, load_params, merge, train
    from lori_core.config import Params
    from lori_core.core.errors import LoriError
    from lori_core.data.example import Example
    from lori_core.evaluation.gate_rules import Measured, RuleInput
    from lori_core.evaluation.scoring.scorers import Verdict
    from lori_core.merging.merge_methods import Factors, Options
    from lori_core.methods.training_method import TrainingMethod, training_method
    from lori_core.registries.data_source import data_source
    from lori_core.registries.engine import engine
    from lori_core.registries.gate_rule import gate_rule
    from lori_core.registries.mask import importance
    from lori_core.registries.merge_method import merge_method
    from lori_core.registries.scorer import scorer

__version__ = "0.2.0"
__all__ = [
    "Adapter",
    "Calibrated",
    "Example",
    "Factors",
    "LoriError",
    "Measured",
    "Options",
    "Params",
    "RuleInput",
    "Score",
    "TrainingMethod",
    "Verdict",
    "__version__",
    "data_source",
    "engine",
    "evaluate",
    "export",
    "gate_rule",
    "importance",
    "load_adapter",
    "load_params",
    "merge",
    "merge_method",
    "scorer",
    "train",
    "training_method",
]

#: The names that `api` does not define itself, and the modules that do.
_HOMES = {
    "Adapter": "adapters.adapter",
    "Calibrated": "adapters.masks.importances",
    "Example": "data.example",
    "Factors": "merging.merge_methods",
    "LoriError": "core.errors",
    "Measured": "evaluation.gate_rules",
    "Options": "merging.merge_methods",
    "Params": "config",
    "RuleInput": "evaluation.gate_rules",
    "TrainingMethod": "methods.training_method",
    "Verdict": "evaluation.scoring.scorers",
    "data_source": "registries.data_source",
    "engine": "registries.engine",
    "gate_rule": "registries.gate_rule",
    "importance": "registries.mask",
    "merge_method": "registries.merge_method",
    "scorer": "registries.scorer",
    "training_method": "methods.training_method",
}


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is first used: `import lori_core` itself loads no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # By name, so that a stage's digest of the code it imports does not hold the whole library.
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the names of the API beside the module's own."""
    return sorted({*globals(), *__all__})
