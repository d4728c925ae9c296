"""`adapter_config.json` of a PEFT LoRA folder: what can be used of it, and what decides ΔW."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lori_core.errors import AdapterError
from lori_core.files import digest, read_json
from lori_core.peft_names import CONFIG_FILE

#: Options that say how an adapter was trained or where its base lies: ΔW does not depend on them.
_NOT_DECISIVE = {
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
#: Options that are read here.
_READ = {
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
}
#: Initialisations that leave the base's weights alone; the others subtract something from them.
_PLAIN_INIT = (True, False, None, "gaussian", "orthogonal", "eva")


def read(folder: Path) -> dict[str, Any]:
    """Read a folder's configuration.

    Raises:
        AdapterError: for an option that changes what is computed beyond scaling · B @ A, or a value
            of another type, naming it.
        InputError: for a file that is missing or no JSON.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise AdapterError(f"{path}: peft_type is {kind!r}; only LORA can be used")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{path}: bias is {config['bias']!r}: trained biases have no low rank")
    init = config.get("init_lora_weights", True)
    if init not in _PLAIN_INIT and not str(init).startswith("orthogonal"):
        raise AdapterError(
            f"{path}: init_lora_weights is {init!r}: it changed the base's weights; save the "
            "adapter with path_initial_model_for_weight_conversion first"
        )
    for option, value in config.items():
        if value and option not in _NOT_DECISIVE | _READ:
            raise AdapterError(
                f"{path}: {option} is set ({str(value)[:60]}): that is no plain low-rank update "
                "and cannot be used here"
            )
    _check_types(config, path)
    _check_patterns(config, path)
    return config


def decisive_digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the options that decide which modules get which ΔW."""
    return digest({name: v for name, v in config.items() if name not in _NOT_DECISIVE})


def _check_types(config: Mapping[str, Any], path: Path) -> None:
    rules = {
        "a whole number above 0": (("r",), _is_rank),
        "a finite number": (("lora_alpha",), _is_number),
        "true or false": (("use_rslora", "fan_in_fan_out"), _is_flag),
        "ranks by name": (("rank_pattern",), lambda value: _is_pattern(value, _is_rank)),
        "numbers by name": (("alpha_pattern",), lambda value: _is_pattern(value, _is_number)),
        "a name, or a list of names": (("target_modules", "exclude_modules"), _is_names),
    }
    for allowed, (options, fits) in rules.items():
        for option in options:
            if not fits(config.get(option)):
                raise AdapterError(
                    f"{path}: {option} is {str(config.get(option))[:60]!r}, not {allowed}; save "
                    "the adapter again, or take it from where it came"
                )


def _check_patterns(config: Mapping[str, Any], path: Path) -> None:
    for option in ("rank_pattern", "alpha_pattern"):
        for pattern in config.get(option) or {}:
            try:
                re.compile(rf"(.*\.)?({pattern})$")
            except (re.error, OverflowError, RecursionError) as error:
                raise AdapterError(
                    f"{path}: {option}: {pattern[:60]!r} is no regular expression ({error}); "
                    "write a module's name, or a pattern for names"
                ) from None


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_pattern(value: Any, fits: Any) -> bool:
    return not value or (isinstance(value, dict) and all(map(fits, value.values())))


def _is_names(value: Any) -> bool:
    names = value if isinstance(value, list) else [value] if value is not None else []
    return all(isinstance(name, str) for name in names)
