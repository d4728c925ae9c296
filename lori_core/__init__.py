"""LoRI: low-rank adapters with reduced interference (the method; no engine is imported here).

An extension imports from here what it adds something with: `from lori_core import merge_method`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lori_core.adapters.masks.importances import Calibrated
    from lori_core.data.example import Example
    from lori_core.evaluation.gate_rules import Judged, Measured
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
    "Calibrated",
    "Example",
    "Factors",
    "Judged",
    "Measured",
    "Options",
    "TrainingMethod",
    "Verdict",
    "data_source",
    "engine",
    "gate_rule",
    "importance",
    "merge_method",
    "scorer",
    "training_method",
]
#: Where each of them stands; it is imported when it is asked for.
_HOMES = {
    "Calibrated": "adapters.masks.importances",
    "Example": "data.example",
    "Factors": "merging.merge_methods",
    "Judged": "evaluation.gate_rules",
    "Measured": "evaluation.gate_rules",
    "Options": "merging.merge_methods",
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
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
