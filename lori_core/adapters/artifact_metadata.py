"""Read an artifact's metadata without its tensors: content key, parents and settings.

This module imports no model library, so reading hundreds of artifacts is fast.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lori_core.core.errors import AdapterError
from lori_core.core.files.atomic import checksum_fits, digest
from lori_core.core.files.json_input import loads

Kind = Literal["adapter", "merged adapter", "full model", "mask"]
#: The most bytes of a safetensors header that are read; the longest mask's is a few kilobytes.
HEADER_BYTES = 16 << 20
_ZERO_DIGEST = b"0" * 64


@dataclass(frozen=True)
class ArtifactMetadata:
    """The metadata that an artifact holds about itself.

    Attributes:
        kind: the kind of artifact.
        key: its content key: the digest of everything that decides its content.
        parents: the content keys of the artifacts it was computed from.
        facts: base, rank, task, merge recipe and the like, for display.
        depends: the object that the key is the digest of; empty if the artifact does not hold it.
        file: the file in the artifact's folder that holds the metadata; empty for a mask.
    """

    kind: Kind
    key: str
    parents: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    depends: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""

    @property
    def key_fits(self) -> bool:
        """Whether the key is the digest of `depends`; True if `depends` is empty."""
        return not self.depends or digest(self.depends) == self.key


def of_adapter(content: bytes, where: str) -> ArtifactMetadata:
    """Read `adapter.json`.

    Args:
        content: the file's bytes.
        where: the file's name in error messages.

    Raises:
        AdapterError: the file is not JSON, lacks a key, or its checksum does not fit.
    """
    return _read_checked(content, where, _adapter)


def of_tuned(content: bytes, where: str) -> ArtifactMetadata:
    """Read `tuned.json` of a PEFT adapter that is not a plain LoRA, or of a full model.

    Args:
        content: the file's bytes.
        where: the file's name in error messages.

    Raises:
        AdapterError: the file is not JSON, lacks a key, or its checksum does not fit.
    """
    return _read_checked(content, where, _tuned)


def _read_checked(
    content: bytes, where: str, read: Callable[[Mapping[str, Any]], ArtifactMetadata]
) -> ArtifactMetadata:
    metadata = _json(content, where)
    if "checksum" in metadata and not checksum_fits(metadata):
        raise AdapterError(f"{where}: damaged or edited (its checksum does not fit)")
    try:
        return read(metadata)
    except (KeyError, TypeError, AttributeError) as error:
        raise AdapterError(f"{where}: damaged: it lacks {error}") from None


def _adapter(content: Mapping[str, Any]) -> ArtifactMetadata:
    info = content["info"]
    recipe = info.get("recipe")
    facts = _of_base(content["base"]) | {"dtype": content.get("dtype"), "sha256": content["sha256"]}
    facts |= _shape(content)
    if recipe:
        parents = [str(parent["content_key"]) for parent in recipe["parents"]]
        facts |= {name: value for name, value in recipe.items() if name not in _RECIPE_KEYS}
        facts["weights"] = [parent["weight"] for parent in recipe["parents"]]
        depends = {name: value for name, value in recipe.items() if name != "content_key"}
        key = str(recipe["content_key"])
        return ArtifactMetadata(
            "merged adapter", key, tuple(parents), facts, depends, "adapter.json"
        )
    facts |= _trained(info)
    blocks = content["projection"]["blocks"]
    facts["projection"] = [f"{block['key']} (seed {block['seed']})" for block in blocks]
    facts["rank"] = sum(block["rank"] for block in blocks) or facts.get("rank")
    return _of_info("adapter", info, facts, "adapter.json")


def _shape(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the largest rank and the sparsity of B; empty for a file of format version 1."""
    modules, mask = content["modules"], content.get("mask")
    if any(len(module) < 5 for module in modules):
        return {}
    facts: dict[str, Any] = {"rank": max((module[3] for module in modules), default=None)}
    total = sum(d_out * rank for _, _, d_out, rank, _ in modules)
    if mask and total:
        facts["sparsity"] = round(1 - mask["count"] / total, 4)
    return facts


def _tuned(content: Mapping[str, Any]) -> ArtifactMetadata:
    base, info = content["base"], content["info"]
    facts = _of_base(base) | {"sha256": content["sha256"]} | _trained(info)
    kind: Kind = "adapter" if content.get("peft_type") else "full model"
    return _of_info(kind, info, facts, "tuned.json")


def _of_base(base: Mapping[str, Any]) -> dict[str, Any]:
    at = f" at {base['revision']}" if base.get("revision") else ""
    weights = base.get("tensors") or base["weights"]
    return {"base": f"{base['name']}{at}", "base_weights": weights, "base_identity": dict(base)}


def _trained(info: Mapping[str, Any]) -> dict[str, Any]:
    return {name: info[name] for name in ("task", "stage", "method") if info.get(name)}


def _of_info(
    kind: Kind, info: Mapping[str, Any], facts: dict[str, Any], file: str
) -> ArtifactMetadata:
    parents = tuple(str(parent) for parent in info.get("parents", ()))
    key = str(info.get("content_key") or "")
    return ArtifactMetadata(kind, key, parents, facts, info.get("depends") or {}, file)


_RECIPE_KEYS = ("content_key", "parents", "code")

#: Metadata file of an artifact's folder -> its reader, and the file of its tensors.
FOLDERS: dict[str, tuple[Callable[[bytes, str], ArtifactMetadata], str]] = {
    "adapter.json": (of_adapter, "adapter.safetensors"),
    "tuned.json": (of_tuned, "adapter_model.safetensors"),
}


def of_mask(content: bytes, where: str) -> ArtifactMetadata:
    """Read a mask's metadata from the first bytes of its file.

    Args:
        content: at least the safetensors header.
        where: the file's name in error messages.

    Raises:
        AdapterError: the header is damaged.
    """
    length = int.from_bytes(content[:8], "little")
    if length > HEADER_BYTES:
        raise AdapterError(f"{where}: not a safetensors file, or damaged at bytes 0-7")
    header = _json(content[8 : 8 + length], where)
    try:
        facts = loads(header["__metadata__"]["facts"])
        calibration = str(facts["calibration"])
    except (KeyError, TypeError, ValueError):
        raise AdapterError(f"{where}: damaged: its metadata is not readable") from None
    keys = ("sparsity", "scope", "importance", "threshold", "count", "total")
    selected = {name: facts[name] for name in keys if name in facts}
    return ArtifactMetadata("mask", str(facts.get("content_key") or ""), (calibration,), selected)


def mask_fits(content: bytes) -> bool:
    """Return whether a mask's file has the SHA-256 that it holds, computed with those digits 0.

    True for a file of format version 1, which holds none.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = loads(content[8 : 8 + length])["__metadata__"]
        digits = metadata.get("sha256", "")
    except (KeyError, ValueError, TypeError, AttributeError):
        return False
    if not digits:  # format version 1
        return True
    blank = content.replace(digits.encode(), _ZERO_DIGEST, 1)
    return hashlib.sha256(blank).hexdigest() == str(digits)


def _json(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = loads(content)
    except ValueError:
        raise AdapterError(f"{where}: damaged: its JSON is not readable") from None
    if not isinstance(value, dict):
        raise AdapterError(f"{where}: damaged: a JSON object is expected")
    return value
