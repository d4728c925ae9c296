"""What identifies a base model, and whether two identities are those of one model.

A base is identified by its content: the tensors that transformers would load and the part of
`config.json` that decides what is computed with them. How the folder is called, where it lies, how
its weights are split into files and what else lies beside them do not matter.
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
    from lori_core.core.files.tensor_file import Entry, TensorFile

#: Keys of `config.json` that do not decide what the model computes: who wrote the file, from where,
#: in which precision (that is `model.dtype`'s to say), whether generation keeps a cache. A key that
#: is not named here decides.
NEUTRAL = frozenset(
    ("transformers_version", "_name_or_path", "_commit_hash", "torch_dtype", "dtype", "use_cache")
)
#: What is read of each tensor: all of it, or this many evenly spaced blocks of so many bytes.
_BLOCKS, _BLOCK = 16, 4096
#: The most blocks of a whole model; with more tensors than that, one of each.
_MOST_BLOCKS = 8192
#: Bytes read at once of a whole tensor.
_CHUNK = 1 << 24

#: In an adapter's `info`: its base is what `--base` named, and not proved.
VOUCHED = "base_vouched"
#: How a model of the hub is named.
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class BaseIdentity:
    """What an adapter remembers of the base model it was made for.

    Attributes:
        name: how the base was named; empty where an adapter from elsewhere names none.
        revision: the commit of a hub model.
        config: SHA-256 of the bytes of `config.json`; empty where only the name is known.
        weights: SHA-256 over samples of every `*.safetensors` in the folder. These two are what
            version 0.1.0 recorded: they recognise its adapters.
        settings: SHA-256 of the part of `config.json` that decides what is computed; empty in
            adapters of version 0.1.0.
        tensors: SHA-256 over name, dtype, shape and samples of each tensor that transformers would
            load.
    """

    name: str
    revision: str
    config: str
    weights: str
    settings: str = ""
    tensors: str = ""

    @property
    def known(self) -> bool:
        """Whether it knows the base's content, and not its name alone."""
        return bool(self.tensors or self.weights)

    def as_dict(self) -> dict[str, str]:
        """Return the identity as plain JSON."""
        later = ("settings", "tensors")
        return {n: v for n, v in asdict(self).items() if v or n not in later}

    def content(self) -> dict[str, str]:
        """Return what results depend on: the content, whatever the base is called."""
        return {"settings": self.settings, "tensors": self.tensors}

    @classmethod
    def of(cls, said: Any, where: str) -> BaseIdentity:
        """Read what `as_dict` wrote.

        Raises:
            AdapterError: for anything else, naming where it stands.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(said, dict) or not {"name", "revision", "config", "weights"} <= set(said):
            raise AdapterError(f"{where}: damaged: it does not say which base model it is for")
        if not set(said) <= known or not all(isinstance(value, str) for value in said.values()):
            raise AdapterError(f"{where}: its base is described in a way not known here; update")
        return cls(**said)


class Match(Enum):
    """How two identities stand to each other."""

    PROVED = auto()
    """Their contents are equal."""
    DIFFERENT = auto()
    """Their contents differ."""
    NAMED = auto()
    """At least one does not know its content; both name one model."""
    NAMELESS = auto()
    """Neither says anything."""
    UNPROVED = auto()
    """At least one does not know its content, and their names do not say that they are one."""


def identity(name: str, revision: str | None, folder: Path) -> BaseIdentity:
    """Return what identifies the base model in a folder.

    Raises:
        ModelError: for a folder without weights, or a damaged one.
        InputError: for a `config.json` that cannot be read.
    """
    config = folder / "config.json"
    settings = read_json(config)
    if not isinstance(settings, dict):
        raise ModelError(f"{config}: a JSON object is expected")
    return BaseIdentity(
        name=name,
        revision=revision or "",
        config=sha256_file(config),
        weights=_former_weights(folder),
        settings=digest(_deciding(settings)),
        tensors=_tensors(folder),
    )


def match(first: BaseIdentity, second: BaseIdentity) -> Match:
    """Say how two identities stand to each other; content decides where both know theirs."""
    for parts in (("settings", "tensors"), ("config", "weights")):
        sides = [tuple(getattr(side, part) for part in parts) for side in (first, second)]
        if all(side[1] for side in sides):
            return Match.PROVED if sides[0] == sides[1] else Match.DIFFERENT
    if not first.name and not second.name and not first.known and not second.known:
        return Match.NAMELESS
    return Match.NAMED if same_name(first, second) else Match.UNPROVED


def differing(first: BaseIdentity, second: BaseIdentity) -> str:
    """Return what of two different contents differs: `config` or `weights`."""
    if first.tensors and second.tensors:
        return "config" if first.settings != second.settings else "weights"
    return "config" if first.config != second.config else "weights"


def same_name(first: BaseIdentity, second: BaseIdentity) -> bool:
    """Say whether two identities name one model: one folder however written, or one hub id.

    A revision counts where both give one; `main` says as much as none.
    """
    if not first.name or not second.name or _place(first.name) != _place(second.name):
        return False
    revisions = {side.revision for side in (first, second)} - {"", "main"}
    return len(revisions) < 2


def _place(name: str) -> object:
    """Return what a name stands for: a folder by its inode, a hub id whatever its case."""
    if name.partition(":")[0] in ("pypi", "random"):
        return name
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - names that Path refuses stay names
    if path.is_dir():
        found = path.stat()
        return found.st_dev, found.st_ino
    if HUB_ID.fullmatch(name.rstrip("/")):
        return name.rstrip("/").lower()
    return os.path.abspath(path)  # noqa: PTH100 - nothing is there to be resolved


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in settings.items() if name not in NEUTRAL}
    text = kept.get("text_config")  # the language model's own settings in a larger one's
    if isinstance(text, dict):
        kept["text_config"] = _deciding(text)
    return kept


def whole_content(folder: Path) -> str:
    """Return the SHA-256 over name, dtype, shape and every byte of each tensor, by name.

    It takes as long as reading all the weights: some seconds for 8B parameters from a fast disk.
    """
    return _tensors(folder, whole=True)


def _tensors(folder: Path, *, whole: bool = False) -> str:
    """Hash each tensor's name, dtype, shape and samples in the order of names: shards are alike."""
    files = [base_files.opened(path) for path in base_files.weight_files(folder)]
    places = sorted((name, number) for number, file in enumerate(files) for name in file)
    blocks = max(1, min(_BLOCKS, _MOST_BLOCKS // max(1, len(places))))
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
    """Return (first byte, bytes) of what is read of a tensor."""
    size = entry.stop - entry.start
    if size <= blocks * _BLOCK:
        return [(entry.start, size)]
    if blocks == 1:
        return [(entry.start + (size - _BLOCK) // 2, _BLOCK)]
    return [(entry.start + (size - _BLOCK) * n // (blocks - 1), _BLOCK) for n in range(blocks)]


def _chunks(entry: Entry) -> Iterator[tuple[int, int]]:
    """Yield (first byte, bytes) of all of a tensor."""
    for start in range(entry.start, entry.stop, _CHUNK):
        yield start, min(_CHUNK, entry.stop - start)


def _read(file: TensorFile, start: int, buffer: bytearray) -> None:
    try:
        file.read_into(start, memoryview(buffer))
    except AdapterError as error:
        raise ModelError(str(error)) from None


def _former_weights(folder: Path) -> str:
    """Return the digest of version 0.1.0: names, sizes, headers and samples of all weight files."""
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        if not path.is_file():
            continue  # a link to a file that is missing; none that would be loaded
        size = path.stat().st_size
        sha.update(f"{path.name}\n{size}\n".encode())
        with path.open("rb") as handle:
            header = int.from_bytes(handle.read(8), "little")
            sha.update(handle.read(min(header, size)))
            for block in range(64):
                handle.seek(max(0, size - 4096) * block // 63)
                sha.update(handle.read(4096))
    return sha.hexdigest()
