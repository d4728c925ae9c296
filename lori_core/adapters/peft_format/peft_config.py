"""Read and check `adapter_config.json` of a PEFT LoRA folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lori_core.core.errors import AdapterError, shown
from lori_core.core.files.atomic import digest, read_json
from lori_core.models.peft_names import CONFIG_FILE

#: Options of the training run or the base's location, on which ΔW does not depend.
_IRRELEVANT = {
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
#: Options that decide ΔW and are supported.
_SUPPORTED = {
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
#: What can be done about an adapter that is more than a low-rank update of linear layers.
MERGE_FIRST = (
    "merge it into its base with PEFT (PeftModel.from_pretrained(...).merge_and_unload()) and use "
    "the result as the base, or train without it"
)
#: Options that are refused, and what they add to the update.
_REFUSED = {
    "modules_to_save": "whole modules were trained",
    "target_parameters": "parameters that stack experts' matrices were adapted",
    "trainable_token_indices": "rows of the embedding were trained",
    "use_dora": "DoRA also trains magnitudes",
    "lora_bias": "biases were trained",
    "layer_replication": "layers of the base are repeated",
}
_MORE = {
    True: ", which is no plain low-rank update of linear layers",
    False: " is no plain low-rank update and is not supported here",
}
#: Initialisations that do not change the base's weights; the others subtract the initial ΔW.
_PLAIN_INIT = (True, False, None, "gaussian", "orthogonal", "eva")


def read(folder: Path) -> dict[str, Any]:
    """Read and check a folder's `adapter_config.json`.

    Raises:
        AdapterError: an option makes ΔW more than scaling · B @ A, or a value has a wrong type.
        InputError: the file is missing or not JSON.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise AdapterError(f"{path}: peft_type is {shown(kind)}; only LORA can be used")
    _check_types(config, path)
    if config.get("bias", "none") != "none":
        raise AdapterError(
            f"{path}: bias is {shown(config['bias'])}, not 'none': trained biases have no "
            "low rank; train the adapter without them"
        )
    init = config.get("init_lora_weights", True)
    if init not in _PLAIN_INIT and not str(init).startswith("orthogonal"):
        raise AdapterError(
            f"{path}: init_lora_weights is {shown(init)}: it changed the base's weights; save the "
            "adapter with path_initial_model_for_weight_conversion first"
        )
    for option, value in config.items():
        if value and option not in _IRRELEVANT | _SUPPORTED:
            raise AdapterError(
                f"{path}: {option} is set ({shown(value)}): "
                f"{_REFUSED.get(option, 'that')}{_MORE[option in _REFUSED]}; {MERGE_FIRST}"
            )
    return config


def decisive_digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the options that decide ΔW."""
    return digest({name: v for name, v in config.items() if name not in _IRRELEVANT})


def _check_types(config: Mapping[str, Any], path: Path) -> None:
    for options, allowed, fits in _KINDS:
        for option in options:
            if not fits(config.get(option)):
                raise AdapterError(
                    f"{path}: {option} is {shown(config.get(option))}, not {allowed}; save the "
                    "adapter again, or take it from where it came"
                )


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_number(value: Any) -> bool:
    return _is_finite(value) and value > 0


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return value is None or (_is_finite(value) and 0 <= value <= 1)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_names(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return value is None or all(isinstance(name, str) for name in names)


def _is_layers(value: Any) -> bool:
    layers = value if isinstance(value, list) else [value]
    return value is None or all(type(layer) is int and layer >= 0 for layer in layers)


def _by_pattern(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        value is None or (isinstance(value, dict) and all(map(fits, value.values())))
    )


#: (options, allowed values as text, check of a value); JSON's null counts as a missing option.
_KINDS: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
    (("r",), "a whole number above 0", _is_rank),
    (("lora_alpha",), "a finite number above 0", _is_number),
    (("use_rslora", "fan_in_fan_out", "inference_mode"), "true or false", _is_flag),
    (("rank_pattern",), "ranks (whole numbers above 0) by name", _by_pattern(_is_rank)),
    (("alpha_pattern",), "numbers above 0 by name", _by_pattern(_is_number)),
    (
        ("target_modules",),
        "a name, or a list of names with at least one",
        lambda value: bool(value) and _is_names(value),
    ),
    (("exclude_modules", "layers_pattern"), "a name, or a list of names", _is_names),
    (("layers_to_transform",), "a layer's number, or a list of them", _is_layers),
    (("lora_dropout",), "a number from 0 to 1", _is_share),
    (("base_model_name_or_path", "revision", "task_type", "peft_version"), "text", _is_text),
    (
        ("init_lora_weights",),
        "true, false or the name of a way to begin",
        lambda value: value is None or isinstance(value, bool | str),
    ),
)
