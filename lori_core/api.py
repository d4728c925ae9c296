"""The Python API: `import lori_core as lori`, then `lori.merge(…)` and the like.

Thin functions over what the `lori` command does, without its files: no `params.yaml`, DVC, Prefect
or MLflow is needed. Each refuses what the command refuses, with the same one-line errors, all of
them subclasses of `LoriError`. Nothing heavy is imported before a function is called.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lori_core.core.errors import InputError, unknown

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter
    from lori_core.adapters.base_choice import Base
    from lori_core.config import Params
    from lori_core.data.example import Example, Split
    from lori_core.methods.baselines.finetuned_model import Tuned


#: What a parameter file must hold and an evaluation has no use for.
_LEAST: dict[str, Any] = {
    "lori": {},
    "training": {"learning_rate": 1e-3},
    "tasks": {"none": {"source": "bundled-math", "calibration": {}, "training": {}}},
}
#: The stages of one task, in order.
_STAGES = ("calibrate", "mask", "train")


@dataclass(frozen=True)
class Score:
    """How well a model does on one test set.

    Attributes:
        metric: what `value` is: `accuracy`, `exact_match`, `pass_at_1`, `refusal_rate`, …
        value: in [0, 1]; None where no example counts.
        low: the lower end of the 95 % confidence interval of `value`; None where there is none.
        high: its upper end.
        n: how many examples count.
        details: everything that was measured, as in `results.json` of `lori evaluate`: by kind of
            example, by other protocols, cut prompts and empty outputs.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    details: Mapping[str, Any] = field(repr=False, default_factory=dict)


def load_params(source: str | PathLike[str] | Mapping[str, Any]) -> Params:
    """Read and validate the parameters of a run.

    Args:
        source: the path of a `params.yaml` or of a profile; or its sections as plain values.

    Returns:
        The parameters, immutable, every field with its default filled in.

    Raises:
        ConfigError: a key or value that is not allowed, naming it and what is.
    """
    from lori_core import config
    from lori_core.pipeline import params_file

    if not isinstance(source, Mapping):
        return params_file.load(Path(source))
    return _checked(config.parse(source, "params"))


def load_adapter(path: str | PathLike[str], *, verify_projection: bool = True) -> Adapter:
    """Read an adapter's folder, one of this project's or of PEFT's (`adapter_config.json`).

    The files' checksums are verified at once; tensors are read when they are asked for, so that
    memory holds one module at a time. `adapter.modules` names the adapted linear layers;
    `adapter.A(name)` is [rank, d_in] and `adapter.B(name)` is [d_out, rank], both float32;
    `adapter.delta(name)` is ΔW = scaling · B @ A, [d_out, d_in].

    Args:
        path: the folder.
        verify_projection: whether an A that is drawn from a key is drawn once and compared with
            its recorded SHA-256.

    Raises:
        AdapterError: no adapter is there, it is damaged, or it uses a feature of PEFT that is no
            low-rank update of linear layers (DoRA, IA3, a bias, …), naming which.
    """
    from lori_core.adapters.peft_format import peft_file

    return peft_file.open_adapter(Path(path), verify_projection=verify_projection)


def merge(
    adapters: Sequence[Adapter | str | PathLike[str]],
    *,
    method: str = "concat",
    weights: float | Sequence[float] = 1.0,
    density: float | None = None,
    rank: int | None = None,
    majority_sign: Literal["total", "frequency"] = "total",
    seed: int = 0,
    base: str | None = None,
    out: str | PathLike[str] | None = None,
    force: bool = False,
) -> Adapter:
    """Merge adapters of one base model into one, without loading that model.

    Ranks, scalings and adapted modules may differ. The result is computed module by module when its
    tensors are asked for, or written to `out`.

    Args:
        adapters: at least one, in memory or by path; the order matters to `concat` and `dare_*`.
        method: a name of `lori_core.merging.merge_methods.METHODS`.
        weights: one for all adapters or one each; ΔW = Σ weight · ΔW_t for `concat`.
        density: the share of each adapter's entries that pruning methods keep, in (0, 1].
        rank: the `*svd` methods' rank of the result; the largest of the adapters' unless given.
        majority_sign: the `ties` methods: whether the larger sum or the larger count elects a sign.
        seed: the `dare` methods: which entries are dropped.
        base: the base model, for adapters that only name theirs or name none.
        out: a folder to write; only an empty one or an earlier merge is replaced.
        force: whether another folder is replaced, too.

    Returns:
        The merged adapter, read back from `out` where it was written.

    Raises:
        InputError: an unknown method, weights or options that do not fit, or an `out` that may not
            be written.
        AdapterError: adapters of different base models, or that may be of different ones.

    Warns:
        UserWarning: no adapter says which base model it is for, so nothing proves that they are
            for one.
    """
    from lori_core.adapters import adapter_file, output_folder
    from lori_core.merging import merge as merging
    from lori_core.merging.merge_methods import Options

    if isinstance(adapters, str | PathLike) or not adapters:
        raise InputError(f"adapters: {adapters!r}; give a list of at least one")
    each = [weights] * len(adapters) if isinstance(weights, int | float) else list(weights)
    options = Options(density=density, rank=rank, majority_sign=majority_sign, seed=seed)
    # Keys are only carried along: whoever draws A from the result verifies them.
    named = _named(adapters)
    known, read = _of_one_base(named, base)
    merged = merging.merge(method, list(known.values()), each, options)
    if len(known) > 1 and not any(a.base.known or a.base.name for a in known.values()):
        warnings.warn("no adapter names its base model; pass base= to name it", stacklevel=2)
    if out is None:
        return merged
    inputs = [*_paths(adapters), *read]
    with output_folder.claim(Path(out), output_folder.MERGED, inputs, force=force) as folder:
        adapter_file.save(merged, folder)
    return load_adapter(out)


def export(
    adapter: Adapter | str | PathLike[str],
    out: str | PathLike[str],
    *,
    serving: Literal["vllm"] | None = None,
    force: bool = False,
) -> Path:
    """Write an adapter as a stock PEFT folder, with the same A and B bit for bit.

    Args:
        adapter: in memory or by path.
        out: a folder to write; only an empty one or an earlier export is replaced.
        serving: a server whose ranks are few: the rank is padded with zeros to one it can load.
        force: whether another folder is replaced, too.

    Returns:
        `out`, for `PeftModel.from_pretrained(base, out)`.

    Raises:
        InputError: an `out` that may not be written.
        AdapterError: the adapter has what PEFT's format cannot say, naming it.
    """
    from lori_core.adapters import output_folder
    from lori_core.adapters.peft_format import peft_file

    opened = load_adapter(adapter) if isinstance(adapter, str | PathLike) else adapter
    kind, inputs = output_folder.PEFT, _paths([adapter])
    with output_folder.claim(Path(out), kind, inputs, force=force) as folder:
        peft_file.export_peft(opened, folder, serving=serving)
    return Path(out)


def evaluate(
    adapter: Adapter | Tuned | str | PathLike[str] | None,
    *,
    tasks: Sequence[str] | Mapping[str, Sequence[Example]],
    base: str | None = None,
    params: Params | None = None,
    workspace: str | PathLike[str] | None = None,
    split: Split = "test",
    limit: int | None = None,
    out: str | PathLike[str] | None = None,
) -> dict[str, Score]:
    """Score an adapter, or its base model alone, on test sets.

    The base model is loaded for the call. Progress goes to standard error.

    Args:
        adapter: in memory or by path; None for the base model itself.
        tasks: names of sources (`lori sources`) or of tasks whose data are in `workspace`; or
            examples of your own by the name of their set.
        base: the base model: a folder, `pypi:…` or `OWNER/NAME@COMMIT`; the adapter's own unless
            given, or that of `params`.
        params: whose `model`, `prompt` and `evaluation` count; the defaults unless given.
        workspace: a folder in which `train`, or the pipeline, has written `data/`.
        split: which examples of a named task.
        limit: at most so many examples of each set; all unless given.
        out: a folder for every prompt, output and verdict as JSON lines; nothing is kept unless
            given.

    Returns:
        The score of each set that has a scorer, by its name.

    Raises:
        InputError: a task that does not exist, or that has nothing to judge by; no base model is
            named; or the base model cannot be used.
        AdapterError: the adapter is, or may be, for another base model.
    """
    from lori_core.adapters import attach, output_folder
    from lori_core.adapters.adapter import Adapter
    from lori_core.evaluation.evaluate import evaluate as score
    from lori_core.methods.baselines.finetuned_model import open_model
    from lori_core.methods.loaded_model import open_session

    _check_limit(limit)
    opened = open_model(Path(adapter)) if isinstance(adapter, str | PathLike) else adapter
    params, chosen = _with_base(params, opened, base)
    sets = _sets(tasks, params, workspace, split, limit)
    with contextlib.ExitStack() as stack:
        inputs = [chosen.folder, *_paths([adapter])]
        if out is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            output_folder.check(Path(out), output_folder.EVALUATION, inputs)
            claim = output_folder.claim(Path(out), output_folder.EVALUATION, inputs)
            folder = stack.enter_context(claim)
        session = open_session(params, training=False)
        fitted = _for_base(opened, chosen)
        if isinstance(fitted, Adapter):
            attach.check(session.model, fitted, "adapter")
        results = score(session, fitted, sets, "model", folder)
        if out is not None:
            _write_results(folder, results)
    return {name: _score(result) for name, result in results.items()}


def train(params: Params, task: str, *, workspace: str | PathLike[str]) -> Path:
    """Train one task's adapter, by the method that its section names, in a folder.

    Runs the pipeline's stages for this task in this process: the data of all tasks are brought in,
    then `calibrate`, `mask` and `train`. Their outputs lie where the pipeline puts them: `data/`,
    `artifacts/<task>/` and `metrics/`. Relative paths in `params` are read from `workspace`, which
    is the current folder of the process during the call; so call it from one thread at a time.

    Args:
        params: the run; see `load_params`.
        task: a key of `params.tasks`.
        workspace: a folder, made if it is missing. What an earlier call wrote is replaced; a run
            that was stopped goes on from its last checkpoint.

    Returns:
        The adapter's folder, absolute, for `load_adapter`, `merge` and `evaluate`.

    Raises:
        InputError: no such task; a folder of the pipeline's own (`lori run` trains there) or one
            with results of something else; parameters or data that cannot be used.
        DivergedError: a loss that is not a finite number.
    """
    from lori_core.core.tracking import NullTracker
    from lori_core.models import base_model
    from lori_core.pipeline import results, running
    from lori_core.pipeline.stages.pull import pull

    if task not in params.tasks:
        raise InputError(unknown("task", task, params.tasks))
    _checked(params)
    _check_one_process(params, task)
    folder = Path(workspace).expanduser().resolve()
    _check_workspace(folder, task)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        pull(params, base_model.prepare(params.model))
        for stage in _STAGES:
            running.run(params, stage, task, NullTracker())
    return folder / results.adapter_path(task)


def _checked(params: Params) -> Params:
    """Refuse methods and sources that do not exist, as reading `params.yaml` does."""
    from lori_core.data.sources import pulling
    from lori_core.methods import registry

    registry.check(params)
    pulling.check(params)
    return params


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise InputError(f"limit: {limit}; at least 1")


def _check_one_process(params: Params, task: str) -> None:
    from lori_core.config.training_overrides import processes

    for stage in _STAGES:
        count = processes(params.model_dump(), f"{stage}@{task}")
        if count > 1:
            raise InputError(
                f"training.processes: {count}; the Python API trains in one process: set it to 1, "
                "or use lori run"
            )


def _check_workspace(folder: Path, task: str) -> None:
    """Refuse a folder whose results something else wrote and keeps account of."""
    from lori_core.pipeline import results
    from lori_core.pipeline.stages.pull import ASKED

    if folder.exists() and not folder.is_dir():
        raise InputError(f"workspace: {folder} is no folder; name a folder to write")
    if (folder / "dvc.yaml").exists():
        raise InputError(
            f"workspace: {folder} has a dvc.yaml: lori run trains there; name another folder"
        )
    if (folder / ASKED).is_file():
        return
    for path in (results.ARTIFACTS / task, results.METRICS):
        if (folder / path).exists():
            raise InputError(
                f"workspace: {folder} holds {path}, which no earlier call of train wrote; name "
                "another folder"
            )


def _paths(given: Iterable[object]) -> list[Path]:
    return [Path(one) for one in given if isinstance(one, str | PathLike)]


def _named(adapters: Sequence[Adapter | str | PathLike[str]]) -> dict[str, Adapter]:
    """Return the adapters by what errors call them: their path, else their place."""
    named: dict[str, Adapter] = {}
    for number, one in enumerate(adapters, start=1):
        if isinstance(one, str | PathLike):
            name, adapter = str(one), load_adapter(one, verify_projection=False)
        else:
            name, adapter = f"adapter {number}", one
        named[name if name not in named else f"{name} ({number})"] = adapter
    return named


def _of_one_base(
    adapters: dict[str, Adapter], base: str | None
) -> tuple[dict[str, Adapter], list[Path]]:
    """Return adapters of one base model, and the folders that were read to tell."""
    from lori_core.adapters import base_choice
    from lori_core.adapters.adapter import check_one_base

    if base is None:
        check_one_base(adapters)
        return adapters, []
    chosen = base_choice.chosen(base, adapters)
    return chosen.of(adapters), [chosen.folder]


def _with_base(
    params: Params | None, adapter: Adapter | Tuned | None, base: str | None
) -> tuple[Params, Base]:
    """Return the parameters with the base model to load, and that model."""
    from lori_core import config
    from lori_core.adapters import base_choice

    own = None if params is None else params.model
    if adapter is not None or base is not None:
        # Only the base that the adapter names is looked at, which both kinds have.
        named: Any = {} if adapter is None else {"adapter": adapter}
        chosen = base_choice.chosen(base, named, own)
    elif own is not None:
        chosen = base_choice.at_hand(own)
    else:
        raise InputError("no adapter, base or params: which model shall be evaluated?")
    values = _LEAST if params is None else params.model_dump()
    return config.parse(values | {"model": chosen.section.model_dump()}, "params"), chosen


def _for_base(adapter: Adapter | Tuned | None, base: Base) -> Adapter | Tuned | None:
    from lori_core.adapters.adapter import Adapter

    return base.of({"adapter": adapter})["adapter"] if isinstance(adapter, Adapter) else adapter


def _sets(
    tasks: Sequence[str] | Mapping[str, Sequence[Example]],
    params: Params,
    workspace: str | PathLike[str] | None,
    split: Split,
    limit: int | None,
) -> dict[str, list[Example]]:
    if isinstance(tasks, str) or not tasks:
        raise InputError(f"tasks: {tasks!r}; give a list of names, or examples by name")
    if isinstance(tasks, Mapping):
        sets = {name: list(examples)[:limit] for name, examples in tasks.items()}
    else:
        data = None if workspace is None else Path(workspace) / "data"
        sets = {name: _examples(name, params, data, split, limit) for name in tasks}
    for name, examples in sets.items():
        if all(example.scorer == "none" for example in examples):
            raise InputError(f"tasks: {name}: its {split} examples have no answer to judge")
    return sets


def _examples(
    name: str, params: Params, data: Path | None, split: Split, limit: int | None
) -> list[Example]:
    from lori_core.data import pulled
    from lori_core.data.sources import catalogue, pulling

    if data is not None and (data / name / f"{split}.jsonl").is_file():
        return pulled.read_examples(name, split, data)[:limit]
    if name in catalogue.CATALOGUE:
        return pulling.read_source(name, split, limit, params.lori.seed)
    there = set() if data is None else {p.parent.name for p in data.glob(f"*/{split}.jsonl")}
    raise InputError(f"tasks: {unknown('task', name, there | set(catalogue.CATALOGUE))}")


def _write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write `results.json` as `lori evaluate` does, by which the folder is known as its output."""
    from lori_core.core.files.atomic import write_json

    write_json(folder / "results.json", {"scores": {"model": results}, "seconds": {}})


def _score(result: Mapping[str, Any]) -> Score:
    return Score(
        metric=str(result["metric"]),
        value=result["score"],
        low=result["low"],
        high=result["high"],
        n=int(result["n"]),
        details=result,
    )
