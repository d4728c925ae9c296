"""What an artifact says about itself, read without its tensors: its key, parents and settings.

Nothing here loads a model library, so a hundred artifacts are read in a moment.
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
_NO_DIGITS = b"0" * 64


@dataclass(frozen=True)
class ArtifactMetadata:
    """Where one artifact came from, in its own words.

    Attributes:
        kind: what it is.
        key: its content key: the digest of all it depends on.
        parents: the content keys of the artifacts it was made from.
        facts: base, rank, task, merge recipe and the like, for people.
        depends: what the key is the digest of, where the artifact holds that.
        file: the file inside the artifact's folder that says this; empty for a mask.
    """

    kind: Kind
    key: str
    parents: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    depends: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""

    @property
    def key_fits(self) -> bool:
        """Whether the key is the digest of what it says it depends on."""
        return not self.depends or digest(self.depends) == self.key


def of_adapter(content: bytes, where: str) -> ArtifactMetadata:
    """Read `adapter.json`.

    Raises:
        AdapterError: it is damaged: not JSON, or its checksum does not fit.
    """
    return _sealed(content, where, _adapter)


def of_tuned(content: bytes, where: str) -> ArtifactMetadata:
    """Read `tuned.json`: what a method trained that is no B @ A, or every weight of the base.

    Raises:
        AdapterError: it is damaged: not JSON, or its checksum does not fit.
    """
    return _sealed(content, where, _tuned)


def _sealed(
    content: bytes, where: str, read: Callable[[Mapping[str, Any]], ArtifactMetadata]
) -> ArtifactMetadata:
    said = _json(content, where)
    if "checksum" in said and not checksum_fits(said):
        raise AdapterError(f"{where}: damaged or edited (its checksum does not fit)")
    try:
        return read(said)
    except (KeyError, TypeError, AttributeError) as error:
        raise AdapterError(f"{where}: damaged: it lacks {error}") from None


def _adapter(said: Mapping[str, Any]) -> ArtifactMetadata:
    info = said["info"]
    recipe = info.get("recipe")
    facts = _of_base(said["base"]) | {"dtype": said.get("dtype"), "sha256": said["sha256"]}
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
    blocks = said["projection"]["blocks"]
    facts["projection"] = [f"{block['key']} (seed {block['seed']})" for block in blocks]
    facts["rank"] = sum(block["rank"] for block in blocks) or None
    return _of_info("adapter", info, facts, "adapter.json")


def _tuned(said: Mapping[str, Any]) -> ArtifactMetadata:
    base, info = said["base"], said["info"]
    facts = _of_base(base) | {"sha256": said["sha256"]} | _trained(info)
    kind: Kind = "adapter" if said.get("peft_type") else "full model"
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

#: What a folder's file says of it, by that file's name; and the file of its tensors.
FOLDERS: dict[str, tuple[Callable[[bytes, str], ArtifactMetadata], str]] = {
    "adapter.json": (of_adapter, "adapter.safetensors"),
    "tuned.json": (of_tuned, "adapter_model.safetensors"),
}


def of_mask(content: bytes, where: str) -> ArtifactMetadata:
    """Read a mask's metadata from the beginning of its file.

    Raises:
        AdapterError: it is damaged.
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
    kept = ("sparsity", "scope", "importance", "threshold", "count", "total")
    shown = {name: facts[name] for name in kept if name in facts}
    return ArtifactMetadata("mask", str(facts.get("content_key") or ""), (calibration,), shown)


def tensors_fit(content: bytes, origin: ArtifactMetadata) -> bool:
    """Whether the bytes of `adapter.safetensors` are those its `adapter.json` names."""
    return hashlib.sha256(content).hexdigest() == str(origin.facts["sha256"])


def mask_fits(content: bytes) -> bool:
    """Whether a mask's file is what was written: its own SHA-256, taken with these digits zero."""
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = loads(content[8 : 8 + length])["__metadata__"]
        digits = metadata.get("sha256", "")
    except (KeyError, ValueError, TypeError, AttributeError):
        return False
    if not digits:  # the first version had none
        return True
    blank = content.replace(digits.encode(), _NO_DIGITS, 1)
    return hashlib.sha256(blank).hexdigest() == str(digits)


def _json(content: bytes, where: str) -> dict[str, Any]:
    try:
        said = loads(content)
    except ValueError:
        raise AdapterError(f"{where}: damaged: its JSON is not readable") from None
    if not isinstance(said, dict):
        raise AdapterError(f"{where}: damaged: a JSON object is expected")
    return said
