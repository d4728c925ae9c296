"""The form of a result file of PEFT's comparison, written from its results and its writer.

`python -m benchmarks.peft_comparison --check FILE…` checks files, also those of PEFT's repository.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: A JSON number that need not be whole.
NUMBER = (float, int)
TEXT_OR_NULL = (str, type(None))
#: A list's form is that of each of its values. A key that ends in `?` may be missing.
Form = Any

_SOURCE: Form = {"sha": TEXT_OR_NULL, "created_at": TEXT_OR_NULL}
_SYSTEM = ("system", "release", "version", "machine", "processor", "accelerator")
_PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
#: The last row of metrics: the test.
TEST: Form = {
    "step": int,
    "test accuracy": NUMBER,
    "train loss": NUMBER,
    "train samples": int,
    "train total tokens": int,
    "forgetting?": NUMBER,
}
#: The other rows: a validation during training.
VALIDATION: Form = {
    "step": int,
    "valid accuracy": NUMBER,
    "train loss": NUMBER,
    "train samples": int,
    "train time": NUMBER,
    "eval time": NUMBER,
    "tokens / sec": NUMBER,
    "mem allocated avg": NUMBER,
    "mem reserved avg": NUMBER,
    "elapsed time": NUMBER,
}
TRAIN_CONFIG: Form = {
    "model_id": str,
    "dtype": str,
    "max_seq_length": int,
    "batch_size": int,
    "batch_size_eval": int,
    "max_steps": int,
    "eval_steps": int,
    "compile": bool,
    "use_gc": bool,
    "query_template": str,
    "seed": int,
    "grad_norm_clip": NUMBER,
    "optimizer_type": str,
    "optimizer_kwargs": dict,
    "lr_scheduler": TEXT_OR_NULL,
    "use_amp": bool,
    "autocast_adapter_dtype": bool,
    "generation_kwargs": dict,
    "attn_implementation": TEXT_OR_NULL,
    "init_kv_cache_prefix?": TEXT_OR_NULL,
}
RESULT: Form = {
    "run_info": {
        "created_at": str,
        "total_time": NUMBER,
        "experiment_name": str,
        "peft_branch": str,
        "peft_worktree_is_dirty?": bool,
        "train_config": TRAIN_CONFIG,
        "peft_config": (dict, type(None)),
        "error_msg": str,
    },
    "train_info": {
        "accelerator_memory_reserved_avg": int,
        "accelerator_memory_max": int,
        "accelerator_memory_reserved_99th": int,
        "train_time": NUMBER,
        "file_size": int,
        "num_trainable_params": int,
        "num_total_params": int,
        "status": str,
        "metrics": list,
    },
    "meta_info": {
        "model_info": _SOURCE,
        "dataset_info": {"metamath": _SOURCE, "gsm8k": _SOURCE},
        "package_info": {
            f"{package}-{what}": TEXT_OR_NULL
            for package in _PACKAGES
            for what in ("version", "commit-hash")
        },
        "system_info": dict.fromkeys(_SYSTEM, str),
        "pytorch_info": str,
    },
}


def faults(result: Any) -> list[str]:
    """Return what differs from the form of a result of a successful run; empty if nothing does."""
    found = list(_faults(result, RESULT, ""))
    if found:
        return found
    metrics = result["train_info"]["metrics"]
    for place, row in enumerate(metrics):
        form = TEST if place == len(metrics) - 1 else VALIDATION
        found += _faults(row, form, f"train_info.metrics[{place}]")
    config = result["run_info"]["peft_config"]
    if not metrics:
        found.append("train_info.metrics: is empty")
    if config is not None and not isinstance(config.get("peft_type"), str):
        found.append("run_info.peft_config.peft_type: expected a text")
    return found


def _faults(value: Any, form: Form, where: str) -> Iterator[str]:
    if not isinstance(form, Mapping):
        types = form if isinstance(form, tuple) else (form,)
        if type(value) not in types:
            names = " or ".join(kind.__name__ for kind in types)
            yield f"{where}: expected {names}, got {type(value).__name__}"
        return
    if not isinstance(value, dict):
        yield f"{where or 'the file'}: expected an object, got {type(value).__name__}"
        return
    prefix = f"{where}." if where else ""
    known = {name.removesuffix("?"): own for name, own in form.items()}
    needed = {name for name in form if not name.endswith("?")}
    for name in sorted(needed - value.keys()):
        yield f"{prefix}{name}: is missing"
    for name in sorted(value.keys() - known.keys()):
        yield f"{prefix}{name}: is not a key of PEFT's results"
    for name in known.keys() & value.keys():
        yield from _faults(value[name], known[name], f"{prefix}{name}")
