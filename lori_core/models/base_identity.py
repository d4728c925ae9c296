"""Identify base models, and compare two identities.

A base model is identified by its content: the tensors that transformers would load, and the part
of `config.json` that decides the computation. The folder's name and location, the split of the
weights into files, and other files in the folder do not matter.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_core.core.errors import AdapterError, ModelError
from lori_core.core.files.atomic import digest, read_json, sha256_file
from lori_core.models import base_files

if TYPE_CHECKING:
    from lori_core.core.files.safetensors_file import Entry, SafetensorsFile

#: Keys of `config.json` that do not decide what the model computes: the file's origin, the dtype
#: (which `model.dtype` sets) and the use of a KV cache. All other keys are hashed.
IRRELEVANT_KEYS = frozenset(
    ("transformers_version", "_name_or_path", "_commit_hash", "torch_dtype", "dtype", "use_cache")
)
#: Keys that do not decide what a loaded model computes in evaluation mode: labels, special tokens,
#: settings of training, and switches of what is returned. Regular expression for the whole key.
_OUTSIDE_COMPUTATION = re.compile(
    r"architectures|.*_token_id|id2label|label2id|problem_type|return_dict|output_.*"
    r"|.*dropout|.*_pdrop|initializer_.*|router_aux_loss_coef|router_jitter_noise"
)
#: Samples of each tensor: this many evenly spaced blocks of this many bytes, or all of it.
_BLOCKS, _BLOCK = 16, 4096
#: The most blocks of a model; with more tensors than that, one block of each.
_MAX_BLOCKS = 8192
#: Bytes read at once when a whole tensor is hashed.
_CHUNK = 1 << 24

#: Key of an adapter's `info`: its base was named with `--base`, and not verified.
VOUCHED = "base_vouched"
#: The form of a hub model's name.
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class BaseIdentity:
    """What an adapter records about its base model.

    Attributes:
        name: the name or path of the base; empty if an imported adapter names none.
        revision: the commit of a hub model; else empty.
        config: SHA-256 of the bytes of `config.json`; empty if only the name is known.
        weights: SHA-256 over samples of every `*.safetensors` in the folder. Version 0.1.0
            recorded only `config` and `weights`, which are needed to compare its adapters.
        settings: SHA-256 of the part of `config.json` that decides the computation; empty in
            adapters of version 0.1.0.
        tensors: SHA-256 over name, dtype, shape and samples of each tensor that transformers would
            load; empty in adapters of version 0.1.0.
    """

    name: str
    revision: str
    config: str
    weights: str
    settings: str = ""
    tensors: str = ""

    @property
    def known(self) -> bool:
        """Whether it holds digests of the base's content, and not only its name."""
        return bool(self.tensors or self.weights)

    def as_dict(self) -> dict[str, str]:
        """Return the identity as a JSON object."""
        optional = ("settings", "tensors")
        return {n: v for n, v in asdict(self).items() if v or n not in optional}

    def content(self) -> dict[str, str]:
        """Return the digests of the content, on which results depend; the name is left out."""
        return {"settings": self.settings, "tensors": self.tensors}

    @classmethod
    def of(cls, content: Any, where: str) -> BaseIdentity:
        """Return the identity that `as_dict` wrote.

        Args:
            content: a JSON value from a file.
            where: the file's name in error messages.

        Raises:
            AdapterError: the value is not an identity.
        """
        known = {field.name for field in fields(cls)}
        required = {"name", "revision", "config", "weights"}
        if not isinstance(content, dict) or not required <= set(content):
            raise AdapterError(f"{where}: damaged: it does not say which base model it is for")
        if not set(content) <= known or not all(isinstance(v, str) for v in content.values()):
            raise AdapterError(f"{where}: its base is described in a way not known here; update")
        return cls(**content)


class Match(Enum):
    """The result of comparing two identities."""

    PROVED = auto()
    """The contents are equal."""
    DIFFERENT = auto()
    """The contents differ."""
    NAMED = auto()
    """At least one has no digests; the names are equal."""
    NAMELESS = auto()
    """Neither has digests or a name."""
    UNPROVED = auto()
    """At least one has no digests, and the names differ or are missing."""


def identity(name: str, revision: str | None, folder: Path) -> BaseIdentity:
    """Return the identity of the base model in a folder.

    Args:
        name: the name under which the user gave the model.
        revision: the commit of a hub model.
        folder: the model's folder.

    Raises:
        ModelError: the folder has no weights, or is damaged.
        InputError: `config.json` cannot be read.
    """
    config = folder / "config.json"
    settings = read_json(config)
    if not isinstance(settings, dict):
        raise ModelError(f"{config}: a JSON object is expected")
    return BaseIdentity(
        name=name,
        revision=revision or "",
        config=sha256_file(config),
        weights=_version_0_1_0_digest(folder),
        settings=digest(_relevant_settings(settings)),
        tensors=_tensors(folder),
    )


def match(first: BaseIdentity, second: BaseIdentity) -> Match:
    """Compare two identities: by digests if both have them, else by name."""
    for parts in (("settings", "tensors"), ("config", "weights")):
        sides = [tuple(getattr(side, part) for part in parts) for side in (first, second)]
        if all(side[1] for side in sides):
            return Match.PROVED if sides[0] == sides[1] else Match.DIFFERENT
    if not first.name and not second.name and not first.known and not second.known:
        return Match.NAMELESS
    return Match.NAMED if same_name(first, second) else Match.UNPROVED


def differing(first: BaseIdentity, second: BaseIdentity) -> str:
    """Return which part of two different contents differs: `config` or `weights`."""
    if first.tensors and second.tensors:
        return "config" if first.settings != second.settings else "weights"
    return "config" if first.config != second.config else "weights"


def same_name(first: BaseIdentity, second: BaseIdentity) -> bool:
    """Return whether two identities name the same model: the same folder, or the same hub id.

    Revisions are compared if both have one; `main` counts as none.
    """
    if (
        not first.name
        or not second.name
        or _normalized_name(first.name) != _normalized_name(second.name)
    ):
        return False
    revisions = {side.revision for side in (first, second)} - {"", "main"}
    return len(revisions) < 2


def _normalized_name(name: str) -> object:
    """Return a comparable form of a name: a folder's inode, or a hub id in lower case."""
    if name.partition(":")[0] in ("pypi", "random"):
        return name
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - does not raise if there is no home
    if path.is_dir():
        status = path.stat()
        return status.st_dev, status.st_ino
    if HUB_ID.fullmatch(name.rstrip("/")):
        return name.rstrip("/").lower()
    return os.path.abspath(path)  # noqa: PTH100 - the path does not exist, so it has no links


def _relevant_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    relevant = {name: value for name, value in settings.items() if name not in IRRELEVANT_KEYS}
    text = relevant.get("text_config")  # the language model's settings in a multimodal model's
    if isinstance(text, dict):
        relevant["text_config"] = _relevant_settings(text)
    return relevant


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ between two models and decide what they compute.

    Args:
        first: a model's settings with their defaults: `model.config.to_dict()`.
        second: those of the other model.

    Returns:
        The keys in order; one inside a section as `section.key`.
    """
    found: list[str] = []
    for key in dict.fromkeys([*first, *second]):
        ours, theirs = first.get(key), second.get(key)
        if ours == theirs or key in IRRELEVANT_KEYS or _OUTSIDE_COMPUTATION.fullmatch(key):
            continue
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found += [f"{key}.{inner}" for inner in differing_settings(ours, theirs)]
        else:
            found.append(key)
    return found


def whole_content(folder: Path) -> str:
    """Return the SHA-256 (hex) over name, dtype, shape and all bytes of each tensor, by name.

    It reads all the weights, which takes some seconds for 8B parameters on a fast disk.
    """
    return _tensors(folder, whole=True)


def _tensors(folder: Path, *, whole: bool = False) -> str:
    """Hash each tensor's name, dtype, shape and samples, sorted by name, however sharded."""
    files = [base_files.header(path) for path in base_files.weight_files(folder)]
    places = sorted((name, number) for number, file in enumerate(files) for name in file.entries)
    blocks = max(1, min(_BLOCKS, _MAX_BLOCKS // max(1, len(places))))
    sha = hashlib.sha256()
    for name, number in places:
        entry = files[number].entries[name]
        sha.update(f"{name}\n{entry.dtype}\n{list(entry.shape)}\n".encode())
        for start, size in _chunks(entry) if whole else _samples(entry, blocks):
            buffer = bytearray(size)
            _read(files[number], start, buffer)
            sha.update(buffer)
    return sha.hexdigest()


def _samples(entry: Entry, blocks: int) -> list[tuple[int, int]]:
    """Return the sampled ranges of a tensor as (first byte, number of bytes)."""
    size = entry.stop - entry.start
    if size <= blocks * _BLOCK:
        return [(entry.start, size)]
    if blocks == 1:
        return [(entry.start + (size - _BLOCK) // 2, _BLOCK)]
    return [(entry.start + (size - _BLOCK) * n // (blocks - 1), _BLOCK) for n in range(blocks)]


def _chunks(entry: Entry) -> Iterator[tuple[int, int]]:
    """Yield ranges that cover a tensor as (first byte, number of bytes)."""
    for start in range(entry.start, entry.stop, _CHUNK):
        yield start, min(_CHUNK, entry.stop - start)


def _read(file: SafetensorsFile, start: int, buffer: bytearray) -> None:
    try:
        file.read_into(start, memoryview(buffer))
    except AdapterError as error:
        raise ModelError(str(error)) from None


def _version_0_1_0_digest(folder: Path) -> str:
    """Return version 0.1.0's SHA-256 over names, sizes, headers and samples of weight files."""
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        if not path.is_file():
            continue  # a broken link, which is not loaded
        size = path.stat().st_size
        sha.update(f"{path.name}\n{size}\n".encode())
        with path.open("rb") as handle:
            header = int.from_bytes(handle.read(8), "little")
            sha.update(handle.read(min(header, size)))
            for block in range(64):
                handle.seek(max(0, size - 4096) * block // 63)
                sha.update(handle.read(4096))
    return sha.hexdigest()
