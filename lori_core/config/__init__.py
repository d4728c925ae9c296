"""The schema of `params.yaml`, with the meaning and unit of each field.

Every key is validated; an unknown key is refused with the nearest valid one.
"""

from lori_core.config.evaluation import EvaluationSection, HarnessSection, JudgeSection
from lori_core.config.experiments import ExperimentsSection
from lori_core.config.model import LoriSection, ModelSection, PromptSection
from lori_core.config.operations import (
    Bound,
    ExecutionSection,
    GateSection,
    StorageSection,
    TrackingSection,
)
from lori_core.config.params import Params, parse
from lori_core.config.search import SearchSection
from lori_core.config.tasks import (
    ContinualSection,
    MergeSection,
    MethodChoice,
    MethodSection,
    Sizes,
    SourceSection,
    TaskSection,
)
from lori_core.config.training import EXECUTION_FIELDS, Override, TrainingSection

__all__ = [
    "EXECUTION_FIELDS",
    "Bound",
    "ContinualSection",
    "EvaluationSection",
    "ExecutionSection",
    "ExperimentsSection",
    "GateSection",
    "HarnessSection",
    "JudgeSection",
    "LoriSection",
    "MergeSection",
    "MethodChoice",
    "MethodSection",
    "ModelSection",
    "Override",
    "Params",
    "PromptSection",
    "SearchSection",
    "Sizes",
    "SourceSection",
    "StorageSection",
    "TaskSection",
    "TrackingSection",
    "TrainingSection",
    "parse",
]
