"""Write a run's files: PEFT's result JSON, the experiment's two configurations, and the adapter."""

from __future__ import annotations

import importlib
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peft_comparison import schema
from benchmarks.peft_comparison.comparison import Measured
from benchmarks.peft_comparison.settings import STAGE, Run
from lori_core.adapters import adapter_file, output_folder
from lori_core.adapters.adapter import Adapter
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import InputError, LoriError
from lori_core.core.files.atomic import read_json, write_json
from lori_core.models import peft_names


def _adapter_files(folder: Path) -> set[str]:
    """Return the files of an adapter that this program wrote; none of other folders."""
    try:
        info = read_json(folder / adapter_file.JSON_FILE)["info"]
        ours = info["stage"] == STAGE
    except (InputError, KeyError, TypeError):
        return set()
    return {adapter_file.JSON_FILE, adapter_file.TENSOR_FILE} if ours else set()


_ADAPTER = output_folder.Kind(
    "python -m benchmarks.peft_comparison", _adapter_files, "name another folder with --out"
)
_EXPORTED = replace(output_folder.PEFT, remedy=_ADAPTER.remedy)
_PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")


@dataclass(frozen=True)
class Clock:
    """When a run began, and what it took.

    Attributes:
        created_at: the start, in ISO 8601 with the time zone.
        total_time: seconds, with loading the model.
    """

    created_at: str
    total_time: float


@dataclass(frozen=True)
class Files:
    """The files of a run in the output folder.

    Attributes:
        experiment: the folder of `adapter_config.json` and `training_params.json`.
        result: the result's JSON file.
        adapter: the adapter in this project's format.
        exported: the adapter in PEFT's format.
    """

    experiment: Path
    result: Path
    adapter: Path
    exported: Path

    @classmethod
    def of(cls, out: Path, run: Run) -> Files:
        """Return a run's files."""
        flat = run.experiment.replace("/", "--")
        adapters = out / "adapters"
        return cls(
            out / "experiments" / run.experiment,
            out / "results" / f"{flat}.json",
            adapters / flat,
            adapters / f"{flat}-peft",
        )

    def check(self) -> None:
        """Refuse adapter folders that this program did not write.

        Raises:
            InputError: a folder holds other files.
        """
        output_folder.check(self.adapter, _ADAPTER)
        output_folder.check(self.exported, _EXPORTED)


def write(files: Files, run: Run, adapter: Adapter, measured: Measured, clock: Clock) -> None:
    """Write all files of a run; the adapters first, because the result has their size.

    Raises:
        LoriError: the result is not in PEFT's form.
    """
    with output_folder.claim(files.adapter, _ADAPTER) as folder:
        adapter_file.save(adapter, folder)
    with output_folder.claim(files.exported, _EXPORTED) as folder:
        peft_file.export_peft(adapter, folder)  # as `lori export --to peft` does
    content = result(run, measured, clock, files.exported)
    if found := schema.faults(content):
        raise LoriError(f"{files.result}: not written, it is not in PEFT's form: {found[0]}")
    files.experiment.mkdir(parents=True, exist_ok=True)
    write_json(files.experiment / peft_names.CONFIG_FILE, experiment_config(run))
    write_json(files.experiment / "training_params.json", run.train.changed())
    files.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(files.result, content)


def result(run: Run, measured: Measured, clock: Clock, exported: Path) -> dict[str, Any]:
    """Return the content of PEFT's result file.

    Args:
        run: the settings.
        measured: the measurements.
        clock: when the run began, and its seconds.
        exported: the folder of the adapter in PEFT's format.
    """
    reserved = measured.steps.reserved
    unknown_source = {"sha": None, "created_at": None}
    return {
        "run_info": {
            "created_at": clock.created_at,
            "total_time": clock.total_time,
            "experiment_name": run.experiment,
            "peft_branch": _branch(),
            "peft_worktree_is_dirty": False,
            "train_config": asdict(run.train),
            "peft_config": experiment_config(run) | {"base_model_name_or_path": run.train.model_id},
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": int(np.mean(reserved)),
            "accelerator_memory_max": measured.peak,
            "accelerator_memory_reserved_99th": int(np.percentile(reserved, 99)),
            "train_time": measured.train_time,
            "file_size": (exported / peft_names.WEIGHTS_FILE).stat().st_size,
            "num_trainable_params": measured.trained,
            "num_total_params": measured.total,
            "status": "success",
            "metrics": measured.metrics,
        },
        "meta_info": {
            "model_info": unknown_source | {"sha": run.model.revision},
            "dataset_info": {"metamath": unknown_source, "gsm8k": unknown_source},
            **_machine(),
        },
    }


def experiment_config(run: Run) -> dict[str, Any]:
    """Return the LoRA configuration of an experiment, as PEFT writes it before training."""
    from peft import LoraConfig

    config = LoraConfig(
        r=run.lori.rank,
        lora_alpha=int(run.lori.lora_alpha),
        target_modules=list(run.lori.target_modules),
        task_type="CAUSAL_LM",
    )
    return peft_names.config_dict(config)


def _branch() -> str:
    """Return the git branch of PEFT; the tag of its version if it is an installed release."""
    import peft

    head = _git(peft, "--abbrev-ref")
    return f"v{version('peft')}" if head is None else head


def _git(module: Any, *options: str) -> str | None:
    """Return `git rev-parse OPTIONS HEAD` in a module's folder; None in site-packages."""
    folder = Path(module.__file__).parent
    if {"site-packages", "dist-packages"} & set(folder.parts):
        return None
    command = ["git", "rev-parse", *options, "HEAD"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _machine() -> Mapping[str, Any]:
    cuda = torch.cuda.is_available()
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[f"{name}-version"] = version(name)
        except PackageNotFoundError:
            packages[f"{name}-version"] = None
        packages[f"{name}-commit-hash"] = None
        if packages[f"{name}-version"] is not None and name in ("peft", "transformers"):
            packages[f"{name}-commit-hash"] = _git(importlib.import_module(name))
    system = platform.uname()
    return {
        "package_info": packages,
        "system_info": {
            "system": system.system,
            "release": system.release,
            "version": system.version,
            "machine": system.machine,
            "processor": platform.processor(),
            "accelerator": torch.cuda.get_device_name(0) if cuda else "CPU",
        },
        "pytorch_info": torch.__config__.show(),
    }
