"""LoRI: low-rank adapters with reduced interference (the method; no engine is imported here).

An extension imports from here what it adds something with: `from lori_core import merge_method`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lori_core.data.example import Example
    from lori_core.evaluation.scorers import Verdict
    from lori_core.gate_rules import Judged, Measured
    from lori_core.importances import Calibrated
    from lori_core.merge_methods import Factors, Options
    from lori_core.registries.data_source import data_source
    from lori_core.registries.engine import engine
    from lori_core.registries.gate_rule import gate_rule
    from lori_core.registries.mask import importance
    from lori_core.registries.merge_method import merge_method
    from lori_core.registries.scorer import scorer
    from lori_core.training_method import TrainingMethod, training_method

__version__ = "0.1.0"
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
    "Calibrated": "importances",
    "Example": "data.example",
    "Factors": "merge_methods",
    "Judged": "gate_rules",
    "Measured": "gate_rules",
    "Options": "merge_methods",
    "TrainingMethod": "training_method",
    "Verdict": "evaluation.scorers",
    "data_source": "registries.data_source",
    "engine": "registries.engine",
    "gate_rule": "registries.gate_rule",
    "importance": "registries.mask",
    "merge_method": "registries.merge_method",
    "scorer": "registries.scorer",
    "training_method": "training_method",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
