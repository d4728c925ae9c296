"""What a method that is no low-rank update has trained: DoRA, IA3, VeRA, or all weights.

The folder is PEFT's own and loads on a stock install, beside it `tuned.json` says what it came
from. For all weights it holds them in the base's precision.
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
from lori_core.adapters.attach import apply_adapter as attach
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
    """A trained model that is more, or other, than its base and some B @ A.

    Attributes:
        base: the base model it belongs to.
        tensors: what was trained, by PEFT's name, or by the base's where it is all weights.
        config: PEFT's configuration; None where it is all weights.
        info: method, task, content key: where it came from.
    """

    base: BaseIdentity
    tensors: Mapping[str, Tensor]
    config: dict[str, Any] | None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def rank(self) -> int:
        """The rank that PEFT's configuration names; 0 where there is none."""
        return int((self.config or {}).get("r", 0))


def save(tuned: FinetunedModel, folder: Path) -> None:
    """Write the folder atomically; what was there before is replaced."""
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
    """Read a folder that `save` wrote; its tensors are read when they are needed.

    Raises:
        AdapterError: for another format, or anything that is not what was written.
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
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise AdapterError(f"{path}: format {found!r}; only {FORMAT!r} can be read")
    # The first version had neither checksum nor config; a name that was edited is no missing one.
    known = _NEEDED <= content.keys() <= _NEEDED | {"checksum", "config"}
    if not known or ("checksum" in content and not checksum_fits(content)):
        raise AdapterError(f"{path}: damaged or edited (its checksum does not fit)")
    return content


#: What any method trains: a low-rank adapter, or something else.
Trained = Adapter | FinetunedModel


def open_model(folder: Path) -> Trained:
    """Read what any method has trained: an adapter, ours or PEFT's, or what `save` wrote here.

    Raises:
        AdapterError: for a folder that is neither.
    """
    if (folder / JSON_FILE).is_file():
        return load(folder)
    return peft_file.open_adapter(folder)


def save_model(model: Trained, folder: Path) -> None:
    """Write what any method has trained; what was there before is replaced."""
    if isinstance(model, FinetunedModel):
        save(model, folder)
    else:
        adapter_file.save(model, folder)


def export(model: Trained, folder: Path) -> None:
    """Write a stock PEFT folder of what any method has trained.

    Raises:
        AdapterError: it is every weight of the base, and no adapter.
    """
    if isinstance(model, Adapter):
        peft_file.export_peft(model, folder)
    elif model.config is None:
        raise AdapterError(f"{folder}: every weight of the base was trained; that is no adapter")
    else:
        save(model, folder)


def facts(model: Trained, folder: Path) -> dict[str, Any]:
    """Return rank, bytes and SHA-256 of what `save_model` wrote, and how many numbers it holds."""
    files = (adapter_file.JSON_FILE, adapter_file.TENSOR_FILE)
    if isinstance(model, FinetunedModel):
        files = (JSON_FILE, peft_names.WEIGHTS_FILE)
    return {
        "rank": model.rank,
        "parameters": model.count,
        "adapter_bytes": sum((folder / file).stat().st_size for file in files),
        "adapter_sha256": read_json(folder / files[0])["sha256"],
    }


def kept(model: Trained) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that `save_model` writes, with names for people."""
    if isinstance(model, FinetunedModel):
        yield from model.tensors.items()
        return
    for letter, tensors in (("A", model.stored or {}), ("B", model.values)):
        yield from ((f"{letter} of {name}", values) for name, values in tensors.items())


@contextmanager
def applied(model: Any, trained: Trained) -> Iterator[Any]:
    """Yield a base model as it was trained; it is the base again afterwards."""
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
    """Put weights into a model, and return those that were there.

    Raises:
        AdapterError: the model has others, or of other shapes; then nothing is put in.
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
    """Wrap a base model in the PEFT model that was trained; `.unload()` takes it off again.

    Raises:
        AdapterError: the base lacks what it was trained on.
    """
    applied = (
        _wear_peft(model, trained)
        if isinstance(trained, FinetunedModel)
        else attach(model, trained)
    )
    return applied.eval()


def _wear_peft(model: Any, tuned: FinetunedModel) -> Any:
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    with warnings.catch_warnings():
        # VeRA's projections are drawn again from their seed, so a file need not hold them.
        warnings.filterwarnings("ignore", message="Specified to not (save|load) vera_A")
        # A configuration names the base as its run did; PEFT would have it be where it lies.
        warnings.filterwarnings("ignore", message="The PEFT config's `base_model_name_or_path`")
        tensors = {name: tuned.tensors[name] for name in tuned.tensors}
        try:
            wrapped = get_peft_model(model, PeftConfig.from_peft_type(**(tuned.config or {})))
            found = set_peft_model_state_dict(wrapped, tensors)
        except (ValueError, RuntimeError) as error:
            *_, last = str(error).strip().splitlines() or [type(error).__name__]
            raise AdapterError(f"it does not fit this base: {last.strip()[:300]}") from None
    if found.unexpected_keys:
        raise AdapterError(f"the base has no {found.unexpected_keys[0]}; it was made for another")
    return wrapped
