"""The table of what decides each pipeline stage's result: code, parameters and inputs.

Content keys include the digests of the code listed here. `dvc.yaml` and `experiments/dvc.yaml` list
the same dependencies, so DVC reruns a stage when one changes. Tests compare `dvc.yaml` with the
table, and the table with the imports of each stage's module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Modules that no result depends on, besides every `__init__.py`: messages, input checks, progress
#: bars, tracking.
NEUTRAL = (
    "core/cache.py",
    "config/experiments.py",
    "config/operations.py",
    "config/references.py",
    "data/chat_limits.py",
    "methods/limits.py",
    "registries/engine.py",
    "core/errors.py",
    "registries/extensions.py",
    "core/faults.py",
    "core/files/finite.py",
    "core/files/input_files.py",
    "core/processes/limited.py",
    "models/model_settings.py",
    "core/processes/child.py",
    "core/progress.py",
    "core/redaction.py",
    "core/source_code.py",
    "core/stage_dependencies.py",
    "training/step_report.py",
    "core/processes/stopping.py",
    "core/tracking.py",
    "core/files/yaml_input.py",
)

#: Reading `params.yaml` and other files.
CONFIG = (
    "config/evaluation.py",
    "config/model.py",
    "config/params.py",
    "config/search.py",
    "config/tasks.py",
    "config/templates.py",
    "config/training.py",
    "core/files/atomic.py",
    "core/files/json_input.py",
    "config/training_overrides.py",
    "registries/gate_rule.py",
    "registries/mask.py",
    "registries/merge_method.py",
    "registries/scorer.py",
    "registries/registry.py",
    "config/validation.py",
)
#: Finding and naming the linear layers of a base model.
MODULES = (
    "models/fused_experts.py",
    "models/linear_layers.py",
    "core/name_patterns.py",
    "models/peft_names.py",
    "models/text_part.py",
    "models/weight_names.py",
)
#: Adapters in memory and on disk.
ADAPTERS = (
    "adapters/adapter.py",
    "adapters/adapter_file.py",
    "models/base_files.py",
    "models/base_identity.py",
    "core/files/atomic.py",
    "core/files/json_input.py",
    "adapters/masks/mask.py",
    "adapters/masks/mask_choices.py",
    "adapters/masks/mask_codec.py",
    "adapters/projection.py",
    "registries/mask.py",
    "registries/registry.py",
    "core/files/safetensors_file.py",
    "core/files/tensor_file.py",
)
#: Reading and writing PEFT's adapter folders.
PEFT_FILES = (
    "adapters/peft_format/base_copies.py",
    "adapters/peft_format/peft_config.py",
    "adapters/peft_format/peft_file.py",
    "adapters/peft_format/peft_modules.py",
    "methods/finetuned_model.py",
)
#: Applying an adapter to a base model, and the interface of training methods.
APPLYING = (
    *CONFIG,
    *ADAPTERS,
    *MODULES,
    *PEFT_FILES,
    "adapters/attach.py",
    "training/trainer_overrides.py",
    "adapters/sparse_parametrization.py",
    "methods/training_method.py",
)
#: The training methods.
METHODS = (
    *APPLYING,
    "methods/lori/continual.py",
    "methods/lori/lori_methods.py",
    "methods/catalogue.py",
    "methods/baselines/keeping_safety.py",
    "methods/baselines/kept_directions.py",
    "methods/baselines/peft_method.py",
    "methods/baselines/peft_methods.py",
    "methods/baselines/protection.py",
    "methods/peft_layers.py",
)
#: A loaded base model, and its tokenised examples.
SESSION = (
    *APPLYING,
    "data/chat.py",
    "data/conversations/encoding.py",
    "data/example.py",
    "data/prompts.py",
    "data/pulled.py",
    "data/tokenised_row.py",
    "data/tokens.py",
    "adapters/masks/mask_choices.py",
    "models/base_model.py",
    "models/precision.py",
    "methods/loaded_model.py",
)
#: Packed batches, and the forward pass that takes them.
PACKING = (
    "data/batching.py",
    "data/packing.py",
    "training/kernels/packed_attention.py",
    "training/kernels/packed_batches.py",
    "training/kernels/plain_attention.py",
    "training/kernels/reference_attention.py",
    "training/kernels/variable_length.py",
)
#: The loss of a batch.
LOSS = (*PACKING, "training/loss.py")
#: Training by any method.
TUNING = (
    *METHODS,
    *SESSION,
    *LOSS,
    "data/passes.py",
    "training/arguments.py",
    "training/checkpoints.py",
    "training/computing.py",
    "training/kernels/flat_values.py",
    "training/kernels/liger.py",
    "training/kernels/lora_linear.py",
    "training/memory.py",
    "training/distributed.py",
    "training/kernels/pointwise.py",
    "training/passes.py",
    "training/token_budget.py",
    "training/trainer.py",
    "training/working_memory.py",
    "methods/lori/null_space.py",
    "methods/tuning.py",
)
#: Saving a trained adapter or model.
SAVING = (
    *ADAPTERS,
    *PEFT_FILES,
    "pipeline/adapter_facts.py",
    "pipeline/results.py",
    "pipeline/saving.py",
)
#: Computing importance scores from a calibrated adapter.
CALIBRATION = (
    *SESSION,
    *LOSS,
    "methods/lori/calibration.py",
    "adapters/masks/importances.py",
    "adapters/masks/structured_mask.py",
)
MASKING = (*CALIBRATION, "adapters/masks/mask_file.py")
MERGING = (
    "adapters/adapter.py",
    "models/base_files.py",
    "models/base_identity.py",
    "core/files/atomic.py",
    "core/files/json_input.py",
    "adapters/masks/mask.py",
    "adapters/masks/mask_choices.py",
    "merging/catalogue.py",
    "merging/merge_methods.py",
    "merging/merge.py",
    "merging/on_safety.py",
    "merging/pruning.py",
    "merging/selective.py",
    "merging/shared_subspace.py",
    "merging/truncation.py",
    "adapters/projection.py",
    "registries/mask.py",
    "registries/merge_method.py",
    "registries/registry.py",
    "core/files/safetensors_file.py",
    "core/files/tensor_file.py",
)
#: Measuring losses on held-out examples.
HELD_OUT = ("evaluation/held_out.py",)
#: Searching a merge's weights, beside scoring and merging.
SEARCHING = (
    *HELD_OUT,
    "evaluation/gate_rules.py",
    "evaluation/paired_comparison.py",
    "evaluation/search",
    "merging/learned/branches.py",
    "merging/learned/descent.py",
    "merging/learned/weight_groups.py",
)
#: Generating outputs, computing log-likelihoods, and scoring both.
EVALUATION = (
    "evaluation/attacks.py",
    "evaluation/bounded_mean.py",
    "evaluation/evaluate.py",
    "evaluation/inference",
    "evaluation/lm_eval",
    "evaluation/sandbox",
    "evaluation/scoring",
    "evaluation/statistics.py",
)
#: Reading stored verdicts, and comparing models by them.
VERDICTS = (
    "core/escaping.py",
    "evaluation/bounded_mean.py",
    "evaluation/paired_comparison.py",
    "evaluation/rows.py",
    "evaluation/sandbox",
    "evaluation/scoring",
    "evaluation/statistics.py",
)
SCORING = (
    *SESSION,
    *PACKING,
    "data/answers.py",
    *EVALUATION,
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
#: The base model's digests, and the tasks' names in order, as written by the last pull.
BASE_FILE = "data/base.json"
TASKS_FILE = "data/tasks.json"
#: The kind of the folder `evaluation.harness.include_path` among `Stage.extensions`.
HARNESS = "harness tasks"


@dataclass(frozen=True)
class Stage:
    """The dependencies of one stage.

    Attributes:
        items: the kind of item that the stage is run for, once each; `{item}` stands for the
            item's name below, `{stage}` for a merge's `stage`.
        code: files and folders of this package.
        params: keys of `params.yaml`; a section's key stands for the whole section.
        inputs: paths in the workspace. A stage that reads several adapters depends on the folder of
            the small metric files that hold each adapter's SHA-256.
        extensions: kinds of registries; the stage depends on each file of `extensions` that
            registers an entry of one of these kinds; with `HARNESS`, also on the folder of
            the harness's task files.
    """

    items: Literal["task", "merge", "continual task", "none"]
    code: tuple[str, ...]
    params: tuple[str, ...]
    inputs: tuple[str, ...]
    extensions: tuple[str, ...] = ()


STAGES: dict[str, Stage] = {
    "calibrate": Stage(
        "task",
        (*TUNING, *SAVING, "pipeline/base.py", "pipeline/stages/calibrate.py", "pipeline/masks.py"),
        (*TRAINING_PARAMS, "tasks.{item}.calibration", "tasks.{item}.projection_key"),
        (BASE_FILE, "data/{item}/train.jsonl"),
        ("training method",),
    ),
    "mask": Stage(
        "task",
        (
            *MASKING,
            *METHODS,
            "pipeline/base.py",
            "pipeline/stages/mask.py",
            "pipeline/masks.py",
            "pipeline/results.py",
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
            "adapters/masks/mask_file.py",
            "pipeline/base.py",
            "pipeline/masks.py",
            "pipeline/stages/train.py",
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
            "adapters/masks/mask_file.py",
            "pipeline/base.py",
            "pipeline/stages/continual.py",
            "pipeline/masks.py",
        ),
        (*TRAINING_PARAMS, "continual.method", "continual.training", "tasks.{item}.training"),
        (
            BASE_FILE,
            "artifacts/{item}/mask.safetensors",
            "artifacts/{safety_task}/adapter",
            "data/{item}/train.jsonl",
            "data/{safety_task}/train.jsonl",
        ),
        ("training method",),
    ),
    "search": Stage(
        "merge",
        (
            *SCORING,
            *LOSS,
            *MERGING,
            *SEARCHING,
            "pipeline/base.py",
            "pipeline/merging.py",
            "pipeline/stages/search.py",
            "pipeline/results.py",
        ),
        (
            *SCORING_PARAMS,
            "continual.safety_task",
            "continual.tasks",
            "gate.rules",
            "merge.{item}",
            "training",
        ),
        ("data", "metrics/train", "metrics/{stage}"),
        ("merge method", "rule", "scorer"),
    ),
    "merge": Stage(
        "merge",
        (
            *CONFIG,
            *ADAPTERS,
            *MERGING,
            *MODULES,
            *PEFT_FILES,
            "adapters/attach.py",
            "adapters/sparse_parametrization.py",
            "merging/learned/weight_groups.py",
            "pipeline/adapter_facts.py",
            "pipeline/merging.py",
            "pipeline/stages/merge.py",
            "pipeline/results.py",
        ),
        # The tasks and their order, to which weights refer: those of `continual` are in no file.
        ("continual.tasks", "merge.{item}"),
        (TASKS_FILE, "artifacts/merged/{item}.weights.json", "metrics/train", "metrics/{stage}"),
        ("merge method",),
    ),
    "interference": Stage(
        "none",
        (
            *CONFIG,
            *ADAPTERS,
            "evaluation/rows.py",
            "merging/interference.py",
            *MODULES,
            *PEFT_FILES,
            "adapters/attach.py",
            "adapters/sparse_parametrization.py",
            "pipeline/stages/interference.py",
            "pipeline/results.py",
        ),
        (),
        (TASKS_FILE, "metrics/calibrate", "metrics/train"),
    ),
    "evaluate_base": Stage(
        "none",
        (
            *SCORING,
            "pipeline/base.py",
            "pipeline/results.py",
            "pipeline/stages/evaluate.py",
        ),
        SCORING_PARAMS,
        ("data",),
        (HARNESS, "scorer"),
    ),
    "evaluate_adapters": Stage(
        "task",
        (
            *SCORING,
            *LOSS,
            *HELD_OUT,
            "evaluation/rows.py",
            "pipeline/base.py",
            "pipeline/results.py",
            "pipeline/stages/evaluate.py",
            "pipeline/stages/evaluate_adapters.py",
        ),
        (*SCORING_PARAMS, "tasks.{item}.method", "tasks.{item}.training", "training"),
        (
            BASE_FILE,
            "artifacts/{item}/adapter",
            "artifacts/{item}/calibrated",
            "data/{item}/test.jsonl",
            "data/{item}/validation.jsonl",
        ),
        (HARNESS, "scorer"),
    ),
    "evaluate_merged": Stage(
        "merge",
        (
            *SCORING,
            "pipeline/base.py",
            "pipeline/results.py",
            "pipeline/stages/evaluate.py",
        ),
        SCORING_PARAMS,
        ("artifacts/merged/{item}", "data"),
        (HARNESS, "scorer"),
    ),
    "evaluate_continual": Stage(
        "continual task",
        (
            *SCORING,
            "pipeline/base.py",
            "pipeline/results.py",
            "pipeline/stages/evaluate.py",
        ),
        SCORING_PARAMS,
        (
            BASE_FILE,
            "artifacts/continual/{item}/adapter",
            "data/{item}/test.jsonl",
            "data/{safety_task}/test.jsonl",
        ),
        (HARNESS, "scorer"),
    ),
    "excess": Stage(
        "merge",
        (
            *SCORING,
            *LOSS,
            *MERGING,
            *HELD_OUT,
            "evaluation/excess.py",
            "merging/learned/weight_groups.py",
            "pipeline/base.py",
            "pipeline/merging.py",
            "pipeline/stages/excess.py",
            "pipeline/results.py",
        ),
        (*SCORING_PARAMS, "merge.{item}", "training"),
        ("artifacts/merged/{item}", "data", "metrics/held_out", "metrics/train"),
        ("merge method", "scorer"),
    ),
    "report": Stage(
        "none",
        (
            *METHODS,
            "data/answers.py",
            "data/example.py",
            *VERDICTS,
            "report",
            "pipeline/stages/report.py",
            "pipeline/results.py",
        ),
        ("continual", "lori", "merge", "model", "training"),
        ("artifacts/evaluations", "data/manifest.json", TASKS_FILE, "metrics"),
        ("scorer", "training method"),
    ),
}


def keys(stage: str, item: str | None) -> list[str]:
    """Return the keys of `params.yaml` that a stage depends on, for one of its items."""
    return [key.format(item=item) for key in STAGES[stage].params]
