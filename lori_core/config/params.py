"""The schema of all of `params.yaml`, and the checks between its sections."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from lori_core.config import references
from lori_core.config.evaluation import EvaluationSection
from lori_core.config.experiments import ExperimentsSection
from lori_core.config.model import LoriSection, ModelSection, PromptSection
from lori_core.config.operations import (
    ExecutionSection,
    GateSection,
    StorageSection,
    TrackingSection,
)
from lori_core.config.tasks import ContinualSection, MergeSection, MethodChoice, TaskSection
from lori_core.config.training import TrainingSection
from lori_core.config.training_overrides import Phase, override_sections
from lori_core.config.validation import ItemName, PathText, Strict, first_error
from lori_core.core.errors import ConfigError, unknown
from lori_core.core.redaction import keys_with_secrets
from lori_core.registries import extensions
from lori_core.registries.merge_method import MERGE_METHODS


class Params(Strict):
    """All of `params.yaml`."""

    model: ModelSection
    prompt: PromptSection = PromptSection()
    lori: LoriSection
    training: TrainingSection
    tasks: dict[ItemName, TaskSection] = Field(min_length=1)
    merge: dict[ItemName, MergeSection] = Field(default_factory=dict)
    continual: ContinualSection = ContinualSection()
    evaluation: EvaluationSection = EvaluationSection()
    execution: ExecutionSection = ExecutionSection()
    tracking: TrackingSection = TrackingSection()
    experiments: ExperimentsSection = ExperimentsSection()
    storage: StorageSection = StorageSection()
    gate: GateSection = GateSection()
    extensions: tuple[PathText, ...] = ()
    """Python files of this workspace that add merge methods, importances, scorers, rules of the
    gate and sources (`lori_core.registries.extensions`)."""

    @model_validator(mode="after")
    def _names_agree(self) -> Params:
        references.check(self)
        self._check_keys()
        self._check_engine()
        for name, task in self.tasks.items():
            for where, source in task.sources(f"tasks.{name}"):
                if not isinstance(source, str):
                    references.check_source(source, where)
                    source.check(where)
        for name, merge in self.merge.items():
            weights = merge.weights
            if isinstance(weights, tuple) and len(weights) != len(self.merged_tasks(name)):
                raise ValueError(
                    f"merge.{name}.weights: {len(weights)} weights for "
                    f"{len(self.merged_tasks(name))} adapters (give one each, or one for all)"
                )
            if merge.method == "safemerge" and len(self.merged_tasks(name)) != 2:
                raise ValueError(
                    f"merge.{name}.adapters: safemerge merges two adapters, got "
                    f"{len(self.merged_tasks(name))}; name a task and then the safety task"
                )
        for name in self.continual.tasks:
            self.phase(name, "continual")
        for name in self.tasks:
            self.phase(name, "calibration")
            self.phase(name, "training")
        return self

    def _check_keys(self) -> None:
        owners: dict[str, str] = {}
        for name in self.tasks:
            key = self.projection_key(name)
            if key in owners:
                raise ValueError(
                    f"tasks.{name}.projection_key: {key!r} is also the key of task "
                    f"{owners[key]!r}; two tasks with one key share one A and would interfere "
                    "(give each its own)"
                )
            owners[key] = name

    def _check_engine(self) -> None:
        if self.evaluation.engine == "vllm" and self.model.quantization is not None:
            raise ValueError(
                "evaluation.engine: vllm opens the base model without quantization, but "
                f"model.quantization is {self.model.quantization}; set evaluation.engine to auto "
                "or transformers, or model.quantization to null"
            )

    def items_of(self, kind: Literal["task", "merge", "continual task", "none"]) -> list[str]:
        """Return the items of a kind (tasks, merges or continual tasks), each with its stages."""
        known = {
            "task": list(self.tasks),
            "merge": list(self.merge),
            "continual task": list(self.continual.tasks),
            "none": [],
        }
        return known[kind]

    def projection_key(self, task: str) -> str:
        """Return the key from which this task's A is drawn."""
        return self.tasks[task].projection_key or task

    def merged_tasks(self, merge: str) -> tuple[str, ...]:
        """Return the tasks whose adapters are merged, in order."""
        section = self.merge[merge]
        everyone = self.continual.tasks if section.stage == "continual" else tuple(self.tasks)
        return section.adapters or everyone

    def searched_tasks(self, merge: str) -> tuple[str, ...]:
        """Return the tasks whose losses a search of the merge's weights measures, in order.

        A merge onto the safety adapter also keeps that adapter's task.
        """
        tasks = self.merged_tasks(merge)
        if MERGE_METHODS[self.merge[merge].method].starts:
            return (*tasks, str(self.continual.safety_task))
        return tasks

    def merge_weights(self, merge: str) -> list[float]:
        """Return the weight of each merged task, in order."""
        weights = self.merge[merge].weights
        count = len(self.merged_tasks(merge))
        return list(weights) if isinstance(weights, tuple) else [weights] * count

    def method(self, task: str, phase: Phase = "training") -> MethodChoice:
        """Return the training method of a task in a phase.

        For the calibration run, this is the method whose mask the run is for.
        """
        if phase == "continual" and self.continual.method is not None:
            return MethodChoice.of(self.continual.method, "continual.method")
        return MethodChoice.of(self.tasks[task].method, f"tasks.{task}.method")

    def setup_settings(self, name: str) -> dict[str, Any]:
        """Return the settings of an entry of `evaluation.setups`; see `SetupSection.resolved`."""
        return self.evaluation.setups[name].resolved(self.prompt.system, self.evaluation.seed)

    def phase(self, task: str, phase: Phase) -> TrainingSection:
        """Return `training` with the overrides of one task and phase.

        Raises:
            ValueError: an override has an unknown key or an invalid value.
        """
        merged = self.training.model_dump()
        for where in override_sections(task, phase):
            owner = self.continual if where.startswith("continual") else self.tasks[task]
            override = getattr(owner, where.rpartition(".")[2])
            for key in override:
                if key not in merged:
                    raise ValueError(f"{where}.{unknown('key', key, merged)}")
            merged |= override
            _validate(TrainingSection, merged, where)
        return TrainingSection(**merged)


def _validate(section: type[BaseModel], values: Mapping[str, Any], where: str) -> None:
    try:
        section.model_validate(values)
    except ValidationError as error:
        raise ValueError(first_error(error, section, where)) from None


#: Prefix of a key that holds a secret -> where the secret belongs instead.
INSTEAD = {
    "tracking": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or "
    "MLFLOW_TRACKING_TOKEN); a database's password goes into ~/.pgpass or PGPASSWORD",
    "evaluation.judge": "set LORI_JUDGE_TOKEN",
    "execution": "set RAY_AUTH_TOKEN",
    "storage": "set the store's own variables (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or "
    "dvc remote modify --local lori password",
    "tasks": "set HF_TOKEN for the hub",
    "model": "set HF_TOKEN for the hub",
}


def _refuse_secrets(values: Mapping[str, Any], where: str) -> None:
    """Refuse a password or token: `params.yaml` is logged, versioned and registered with models.

    Raises:
        ConfigError: naming the key and where the secret goes instead, never the value.
    """
    for key in keys_with_secrets(values):
        hint = next((hint for name, hint in INSTEAD.items() if key.startswith(name)), None)
        raise ConfigError(
            f"{where}: {key}: holds a password or token, which would be logged and kept with "
            f"results; take it out and {hint or 'put it into an environment variable'}"
        )


def _extensions_loaded(
    values: Mapping[str, Any], where: str, workspace: Path | None
) -> AbstractContextManager[None]:
    if workspace is None:
        return nullcontext()
    return extensions.loaded(values.get("extensions", ()), f"{where}: extensions", workspace)


def parse(values: Any, where: str, workspace: Path | None = Path()) -> Params:
    """Validate the plain values of a `params.yaml`.

    Args:
        values: the values.
        where: the beginning of error messages.
        workspace: the folder of the extensions that the values name, which are executed first.
            None executes none and makes all registered entries visible, for values from a
            `params.yaml` that was already validated.

    Raises:
        ConfigError: a value is invalid; the message is one line that begins with `where`.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping of sections, got {type(values).__name__}")
    _refuse_secrets(values, where)
    try:
        with _extensions_loaded(values, where, workspace):
            return Params.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_error(error, Params)}") from None
