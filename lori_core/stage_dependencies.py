"""What decides the result of each pipeline stage: its code, parameters and inputs.

This table is the only place that says so. Content keys take the code from here; `dvc.yaml` and
`experiments/dvc.yaml` list the same, so that DVC runs a stage again when any of it changes. Tests
compare `dvc.yaml` with the table, and the table with what each stage's module really imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Modules that no result depends on: messages, refusals, progress bars, reports of a run.
NEUTRAL = (
    "__init__.py",
    "cache.py",
    "config/__init__.py",
    "config/experiments.py",
    "config/operations.py",
    "config/references.py",
    "data/__init__.py",
    "data/chat_limits.py",
    "data/limits.py",
    "registries/engine.py",
    "errors.py",
    "extensions.py",
    "evaluation/__init__.py",
    "experiments/__init__.py",
    "faults.py",
    "finite.py",
    "input_files.py",
    "limited.py",
    "model_settings.py",
    "process.py",
    "progress.py",
    "redaction.py",
    "registries/__init__.py",
    "report/__init__.py",
    "report/experiments/__init__.py",
    "source_code.py",
    "stage_dependencies.py",
    "stages/__init__.py",
    "step_report.py",
    "stopping.py",
    "tracking.py",
    "yaml_input.py",
)

#: How `params.yaml` is read, and how files are.
CONFIG = (
    "config/evaluation.py",
    "config/model.py",
    "config/params.py",
    "config/tasks.py",
    "config/templates.py",
    "config/training.py",
    "files.py",
    "json_input.py",
    "phases.py",
    "registries/gate_rule.py",
    "registries/mask.py",
    "registries/merge_method.py",
    "registries/scorer.py",
    "registry.py",
    "validation.py",
)
#: The modules of a base model that are adapted, and their names.
MODULES = (
    "fused_experts.py",
    "linear_maps.py",
    "name_patterns.py",
    "peft_names.py",
    "text_part.py",
    "weight_names.py",
)
#: Adapters in memory and on disk.
ADAPTERS = (
    "adapter.py",
    "adapter_file.py",
    "base_files.py",
    "base_identity.py",
    "files.py",
    "json_input.py",
    "mask.py",
    "mask_choices.py",
    "mask_codec.py",
    "projection.py",
    "registries/mask.py",
    "registry.py",
    "tensor_file.py",
)
#: PEFT's adapter folders, read and written.
PEFT_FILES = ("peft_config.py", "peft_file.py", "peft_modules.py", "tuned.py")
#: An adapter on a base model, and the interface of what trains one.
APPLYING = (
    *CONFIG,
    *ADAPTERS,
    *MODULES,
    *PEFT_FILES,
    "attaching.py",
    "recipe.py",
    "sparse.py",
    "training_method.py",
)
#: The training methods: what is attached to a base, and what is collected.
METHODS = (
    *APPLYING,
    "continual.py",
    "lori_methods.py",
    "methods.py",
    "peft_methods.py",
    "peft_training.py",
)
#: A loaded base model, and its tokenised examples.
SESSION = (
    *APPLYING,
    "data/chat.py",
    "data/example.py",
    "data/prompts.py",
    "data/pulled.py",
    "data/tokens.py",
    "mask_choices.py",
    "models.py",
    "precision.py",
    "session.py",
)
#: The loss of a batch.
LOSS = (
    "data/batching.py",
    "data/packing.py",
    "loss.py",
    "packed.py",
    "plain_attention.py",
)
#: Training by any method.
TUNING = (
    *METHODS,
    *SESSION,
    *LOSS,
    "fused.py",
    "memory.py",
    "parallel.py",
    "pointwise.py",
    "training.py",
    "tuning.py",
)
#: Saving what was trained.
SAVING = (
    *ADAPTERS,
    *PEFT_FILES,
    "stages/adapter_facts.py",
    "stages/results.py",
    "stages/saving.py",
)
#: What is taken from a calibrated adapter.
CALIBRATION = (*SESSION, *LOSS, "calibration.py", "importances.py", "structure.py")
MASKING = (*CALIBRATION, "mask_file.py")
MERGING = (
    "adapter.py",
    "base_files.py",
    "base_identity.py",
    "files.py",
    "json_input.py",
    "mask.py",
    "mask_choices.py",
    "merge_methods.py",
    "merging.py",
    "projection.py",
    "registries/mask.py",
    "registries/merge_method.py",
    "registry.py",
    "tensor_file.py",
)
SCORING = (
    *SESSION,
    "data/answers.py",
    "evaluation",
)

TRAINING_PARAMS = (
    "lori.lora_alpha",
    "lori.rank",
    "lori.seed",
    "lori.target_modules",
    "lori.values_dtype",
    "model",
    "prompt",
    "tasks.{item}.method",
    "training",
)
SCORING_PARAMS = ("evaluation", "model", "prompt")
#: The base model's content and the tasks' names in their order, as the last pull found them.
BASE_FILE = "data/base.json"
TASKS_FILE = "data/tasks.json"


@dataclass(frozen=True)
class Stage:
    """What one stage's result depends on.

    Attributes:
        items: what there is one of the stage for; `{item}` stands for it below.
        code: files and folders of this package.
        params: keys of `params.yaml`; a section's key stands for all of it.
        extensions: the kinds of registries of which an extension file may decide the result; the
            stage depends on each file of `extensions` that registers one of them.
        inputs: paths in the workspace. A stage that reads several adapters depends on the folder of
            the small metric files that hold each adapter's SHA-256.
    """

    items: Literal["task", "merge", "continual task", "none"]
    code: tuple[str, ...]
    params: tuple[str, ...]
    inputs: tuple[str, ...]
    extensions: tuple[str, ...] = ()


STAGES: dict[str, Stage] = {
    "calibrate": Stage(
        "task",
        (*TUNING, *SAVING, "stages/base.py", "stages/calibrate.py", "stages/masks.py"),
        (*TRAINING_PARAMS, "tasks.{item}.calibration", "tasks.{item}.projection_key"),
        (BASE_FILE, "data/{item}/train.jsonl"),
        ("training method",),
    ),
    "mask": Stage(
        "task",
        (
            *MASKING,
            *METHODS,
            "stages/base.py",
            "stages/mask.py",
            "stages/masks.py",
            "stages/results.py",
        ),
        (
            "lori.importance",
            "lori.mask_scope",
            "lori.seed",
            "lori.sparsity",
            "lori.structure",
            "lori.target_modules",
            "model",
            "prompt",
            "tasks.{item}.calibration",
            "tasks.{item}.method",
            "training",
        ),
        (BASE_FILE, "artifacts/{item}/calibrated", "data/{item}/train.jsonl"),
        ("importance", "training method"),
    ),
    "train": Stage(
        "task",
        (
            *TUNING,
            *SAVING,
            "mask_file.py",
            "stages/base.py",
            "stages/masks.py",
            "stages/train.py",
        ),
        (*TRAINING_PARAMS, "tasks.{item}.projection_key", "tasks.{item}.training"),
        (
            BASE_FILE,
            "artifacts/{item}/calibrated",
            "artifacts/{item}/mask.safetensors",
            "data/{item}/train.jsonl",
        ),
        ("training method",),
    ),
    "continual": Stage(
        "continual task",
        (
            *TUNING,
            *SAVING,
            "mask_file.py",
            "stages/base.py",
            "stages/continual.py",
            "stages/masks.py",
        ),
        (*TRAINING_PARAMS, "continual.training", "tasks.{item}.training"),
        (
            BASE_FILE,
            "artifacts/{item}/mask.safetensors",
            "artifacts/{safety_task}/adapter",
            "data/{item}/train.jsonl",
        ),
        ("training method",),
    ),
    "merge": Stage(
        "merge",
        (
            *CONFIG,
            *ADAPTERS,
            *MERGING,
            *MODULES,
            *PEFT_FILES,
            "attaching.py",
            "sparse.py",
            "stages/adapter_facts.py",
            "stages/merge.py",
            "stages/results.py",
        ),
        ("merge.{item}",),
        (TASKS_FILE, "metrics/train"),
        ("merge method",),
    ),
    "interference": Stage(
        "none",
        (
            *CONFIG,
            *ADAPTERS,
            "evaluation/rows.py",
            "interference.py",
            *MODULES,
            *PEFT_FILES,
            "attaching.py",
            "sparse.py",
            "stages/interference.py",
            "stages/results.py",
        ),
        (),
        (TASKS_FILE, "metrics/calibrate", "metrics/train"),
    ),
    "evaluate_base": Stage(
        "none",
        (*SCORING, "stages/base.py", "stages/evaluate.py", "stages/results.py"),
        SCORING_PARAMS,
        ("data",),
        ("scorer",),
    ),
    "evaluate_adapters": Stage(
        "task",
        (*SCORING, "stages/base.py", "stages/evaluate.py", "stages/results.py"),
        (*SCORING_PARAMS, "tasks.{item}.method"),
        (
            BASE_FILE,
            "artifacts/{item}/adapter",
            "artifacts/{item}/calibrated",
            "data/{item}/test.jsonl",
        ),
        ("scorer",),
    ),
    "evaluate_merged": Stage(
        "merge",
        (*SCORING, "stages/base.py", "stages/evaluate.py", "stages/results.py"),
        SCORING_PARAMS,
        ("artifacts/merged/{item}", "data"),
        ("scorer",),
    ),
    "evaluate_continual": Stage(
        "continual task",
        (*SCORING, "stages/base.py", "stages/evaluate.py", "stages/results.py"),
        SCORING_PARAMS,
        (
            BASE_FILE,
            "artifacts/continual/{item}/adapter",
            "data/{item}/test.jsonl",
            "data/{safety_task}/test.jsonl",
        ),
        ("scorer",),
    ),
    "excess": Stage(
        "merge",
        (*SCORING, *LOSS, *MERGING, "stages/base.py", "stages/excess.py", "stages/results.py"),
        (*SCORING_PARAMS, "merge.{item}", "training"),
        ("artifacts/merged/{item}", "data"),
        ("merge method", "scorer"),
    ),
    "report": Stage(
        "none",
        (
            *METHODS,
            "data/answers.py",
            "data/example.py",
            "evaluation",
            "report",
            "stages/report.py",
            "stages/results.py",
        ),
        ("continual", "lori", "merge", "model", "training"),
        ("artifacts/evaluations", "data/manifest.json", TASKS_FILE, "metrics"),
        ("scorer", "training method"),
    ),
}


def keys(stage: str, item: str | None) -> list[str]:
    """Return the keys of `params.yaml` that a stage depends on, for one of its items."""
    return [key.format(item=item) for key in STAGES[stage].params]
