"""Save, load and apply the result of any training method, also of those without an update B @ A.

A result that is not a low-rank update is stored as a PEFT adapter folder, which loads with a stock
PEFT install, plus `tuned.json`, which records where it came from. After full fine-tuning, the
folder holds all weights in the base's precision.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lori_core.adapters import adapter_file
from lori_core.adapters.adapter import Adapter
from lori_core.adapters.attach import apply_adapter
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import AdapterError
from lori_core.core.files.atomic import (
    checksum_fits,
    digest,
    json_text,
    read_json,
    replaced_folder,
    sha256_file,
    write_text,
)
from lori_core.core.files.tensor_file import Spec, TensorFile, write
from lori_core.models import peft_names
from lori_core.models.base_identity import BaseIdentity

FORMAT = "lori-tuned/1"
JSON_FILE = "tuned.json"
_NEEDED = {"format", "base", "info", "peft_type", "sha256"}


@dataclass(frozen=True)
class FinetunedModel:
    """A training result that is not a low-rank update B @ A.

    Attributes:
        base: the identity of the base model.
        tensors: the trained tensors by PEFT's names; after full fine-tuning, all weights by the
            base model's names.
        config: PEFT's configuration; None after full fine-tuning.
        info: the result's origin: method, task, content key and so on.
    """

    base: BaseIdentity
    tensors: Mapping[str, Tensor]
    config: dict[str, Any] | None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of trained values."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def rank(self) -> int:
        """The rank in PEFT's configuration; 0 if it has none."""
        return int((self.config or {}).get("r", 0))


def save(tuned: FinetunedModel, folder: Path) -> None:
    """Write the folder atomically, replacing an earlier one."""
    with replaced_folder(folder) as work:
        file = work / peft_names.WEIGHTS_FILE
        specs = {name: Spec(t.dtype, tuple(t.shape)) for name, t in tuned.tensors.items()}
        write(file, specs, iter(tuned.tensors.values()), {"format": "pt"})
        if tuned.config is not None:
            write_text(work / peft_names.CONFIG_FILE, json_text(tuned.config))
        content = {
            "format": FORMAT,
            "base": tuned.base.as_dict(),
            "info": tuned.info,
            "peft_type": (tuned.config or {}).get("peft_type"),
            "config": None if tuned.config is None else digest(tuned.config),
            "sha256": sha256_file(file),
        }
        write_text(work / JSON_FILE, json_text(content | {"checksum": digest(content)}))


def load(folder: Path) -> FinetunedModel:
    """Open a folder that `save` wrote; tensors are read on access.

    Raises:
        AdapterError: the format is unknown, or a file is missing or changed.
    """
    content = _checked(folder / JSON_FILE)
    weights = folder / peft_names.WEIGHTS_FILE
    if not weights.is_file() or sha256_file(weights) != content["sha256"]:
        raise AdapterError(f"{weights}: missing, or not what was written; make it again")
    path = folder / peft_names.CONFIG_FILE
    config = read_json(path) if path.is_file() else None
    written = None if config is None else digest(config)
    if content.get("config", written) != written:
        raise AdapterError(f"{path}: missing, or not what was written; make it again")
    tensors = TensorFile(weights)
    tensors.check_finite()
    base = BaseIdentity.of(content["base"], str(folder / JSON_FILE))
    return FinetunedModel(base, tensors, config, content["info"])


def _checked(path: Path) -> dict[str, Any]:
    """Return the content of `tuned.json` once its format and checksum are checked."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        version = content.get("format") if isinstance(content, dict) else None
        raise AdapterError(f"{path}: format {version!r}; only {FORMAT!r} can be read")
    # Early files have neither `checksum` nor `config`. Other keys are refused, so that renaming
    # `checksum` does not skip its check.
    known = _NEEDED <= content.keys() <= _NEEDED | {"checksum", "config"}
    if not known or ("checksum" in content and not checksum_fits(content)):
        raise AdapterError(f"{path}: damaged or edited (its checksum does not fit)")
    return content


#: The result of any training method.
Trained = Adapter | FinetunedModel


def open_model(folder: Path, *, copies: bool = False) -> Trained:
    """Open the result of any training method: a LoRI or PEFT adapter, or a folder of `save`.

    Args:
        folder: the folder.
        copies: see `peft_file.import_peft`.

    Raises:
        AdapterError: the folder is none of these, or damaged.
    """
    if (folder / JSON_FILE).is_file():
        return load(folder)
    return peft_file.open_adapter(folder, copies=copies)


def save_model(model: Trained, folder: Path) -> None:
    """Write the result of any training method atomically, replacing an earlier one."""
    if isinstance(model, FinetunedModel):
        save(model, folder)
    else:
        adapter_file.save(model, folder)


def export(model: Trained, folder: Path) -> None:
    """Write the result of any training method as a stock PEFT folder.

    Raises:
        AdapterError: it is a full fine-tuning, which is not an adapter.
    """
    if isinstance(model, Adapter):
        peft_file.export_peft(model, folder)
    elif model.config is None:
        raise AdapterError(f"{folder}: every weight of the base was trained; that is no adapter")
    else:
        save(model, folder)


def facts(model: Trained, folder: Path) -> dict[str, Any]:
    """Return rank, number of values, bytes and SHA-256 of a result that `save_model` wrote.

    Args:
        model: the result.
        folder: the folder that it was saved to.
    """
    files = (adapter_file.JSON_FILE, adapter_file.TENSOR_FILE)
    if isinstance(model, FinetunedModel):
        files = (JSON_FILE, peft_names.WEIGHTS_FILE)
    return {
        "rank": model.rank,
        "parameters": model.count,
        "adapter_bytes": sum((folder / file).stat().st_size for file in files),
        "adapter_sha256": read_json(folder / files[0])["sha256"],
    }


def saved_tensors(model: Trained) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that `save_model` writes, with names for messages."""
    if isinstance(model, FinetunedModel):
        yield from model.tensors.items()
        return
    for letter, tensors in (("A", model.stored or {}), ("B", model.values)):
        yield from ((f"{letter} of {name}", values) for name, values in tensors.items())


@contextmanager
def applied(model: Any, trained: Trained) -> Iterator[Any]:
    """Apply a training result to a base model inside a `with` block; restore the base afterwards.

    Args:
        model: the base model; changed in place.
        trained: the result to apply.

    Yields:
        The model to compute with.

    Raises:
        AdapterError: the result does not fit the base.
    """
    if isinstance(trained, FinetunedModel) and trained.config is None:
        before = _swapped(model, trained.tensors)
        try:
            yield model
        finally:
            _swapped(model, before)
        return
    wrapped = apply_model(model, trained)
    try:
        yield wrapped
    finally:
        wrapped.unload()


def _swapped(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace all weights of a model, and return the previous ones.

    Raises:
        AdapterError: names or shapes differ; then the model is unchanged.
    """
    parameters, before = dict(model.named_parameters()), {}
    for name in sorted(parameters.keys() ^ tensors.keys()):
        lacks = "base" if name in tensors else "adapter"
        raise AdapterError(f"the {lacks} has no {name}; all weights were trained on another base")
    for name, parameter in parameters.items():
        shape = tuple(tensors[name].shape)
        if shape != tuple(parameter.shape):
            raise AdapterError(
                f"weight {name}: the base's is {tuple(parameter.shape)}, what was trained has "
                f"{shape}; it was made for another base"
            )
    for name, parameter in parameters.items():
        before[name] = parameter.data
        parameter.data = tensors[name].to(parameter.device, parameter.dtype)
    return before


def apply_model(model: Any, trained: Trained) -> Any:
    """Apply an adapter of any method to a base model; `.unload()` of the result removes it.

    Args:
        model: the base model; changed in place.
        trained: the adapter; not the result of full fine-tuning.

    Returns:
        The PEFT model, in evaluation mode.

    Raises:
        AdapterError: the adapter does not fit the base.
    """
    if isinstance(trained, FinetunedModel):
        return _apply_peft(model, trained).eval()
    return apply_adapter(model, trained).eval()


def _apply_peft(model: Any, tuned: FinetunedModel) -> Any:
    """Apply an adapter that is not a low-rank update through PEFT."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    with warnings.catch_warnings():
        # VeRA's projections are drawn again from their seed, so a file need not hold them.
        warnings.filterwarnings("ignore", message="Specified to not (save|load) vera_A")
        # The configuration names the base as params.yaml did, not by its folder on this machine.
        warnings.filterwarnings("ignore", message="The PEFT config's `base_model_name_or_path`")
        tensors = {name: tuned.tensors[name] for name in tuned.tensors}
        try:
            wrapped = get_peft_model(model, PeftConfig.from_peft_type(**(tuned.config or {})))
            loading = set_peft_model_state_dict(wrapped, tensors)
        except (ValueError, RuntimeError) as error:
            *_, last = str(error).strip().splitlines() or [type(error).__name__]
            raise AdapterError(f"it does not fit this base: {last.strip()[:300]}") from None
    if loading.unexpected_keys:
        raise AdapterError(f"the base has no {loading.unexpected_keys[0]}; it was made for another")
    return wrapped
