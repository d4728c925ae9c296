"""Read `dvc.lock` and `data.dvc` strictly: refuse a file that is truncated or damaged.

DVC itself treats missing records as stages that never ran or data that was never pinned.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.versioning.dvc.yaml_document import damaged, parsed
from lori_core.config.validation import first_error
from lori_core.core.errors import InputError

#: How to restore a damaged file.
MEND_LOCK = (
    "restore it, as in git checkout -- dvc.lock, or from the last run's folder in .lori/snapshots"
)
MEND_PIN = "restore it, as in git checkout -- data.dvc, or pin the data anew with lori pull"
#: The beginning of a `dvc.lock` that DVC wrote.
HEAD = "schema: '2.0'\nstages:\n"
#: The folder that `data.dvc` pins.
PINNED = "data"


@dataclass(frozen=True)
class Entry:
    """A dependency or output of a stage: a path, its hash, size in bytes and number of files."""

    path: str
    md5: str
    size: int | None = None
    files: int | None = None

    @property
    def is_folder(self) -> bool:
        """Whether the hash stands for a listing of files."""
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class StageEntry:
    """A stage as `dvc.lock` recorded it."""

    name: str
    command: str
    deps: Mapping[str, Entry]
    params: Mapping[str, Any]
    outs: Mapping[str, Entry]


def _below(path: str) -> str:
    if "://" not in path and ".." in path.split("/"):
        raise ValueError(f"{path}: leads out of the folder")
    return path


Text = Annotated[str, Field(min_length=1)]
#: A path below the workspace, or a URL.
RecordedPath = Annotated[
    str, Field(pattern=r"^([a-z0-9]+://.+|[^/\x00-\x1f][^\x00-\x1f]*)$"), AfterValidator(_below)
]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
Count = Annotated[int, Field(ge=0)]


class _Entry(BaseModel):
    """A path with its hash; DVC's further keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    path: RecordedPath
    hash: Literal["md5"] | None = None
    md5: Md5 | None = None
    #: Cloud storage has an etag or checksum instead of an MD5.
    etag: Text | None = None
    checksum: Text | None = None
    size: Count | None = None
    nfiles: Count | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.md5 is None:
            if not (self.etag or self.checksum):
                raise ValueError(f"{self.path} has no md5")
            return self
        if self.hash is None or self.size is None:
            raise ValueError(f"{self.path} has no {'hash' if self.hash is None else 'size'}")
        if (self.nfiles is not None) != self.md5.endswith(".dir"):
            raise ValueError(f"{self.path}: nfiles and a hash that ends in .dir go together")
        return self

    def entry(self) -> Entry:
        md5 = self.md5 or self.etag or self.checksum or ""
        return Entry(self.path, md5, self.size, self.nfiles)


class _Stage(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    cmd: Text | list[Text]
    deps: list[_Entry] = []
    params: dict[str, dict[str, Any]] = {}
    outs: list[_Entry] = []

    @model_validator(mode="after")
    def _whole(self) -> Self:
        # A template of dvc.yaml may give a path that is listed already, with the same content.
        _once(
            (path for path, _ in {(dep.path, dep.entry()) for dep in self.deps}), "the dependency"
        )
        if self.command.startswith("lori stage ") and not self.outs:
            raise ValueError("no outs are recorded")
        return self

    @property
    def command(self) -> str:
        return self.cmd if isinstance(self.cmd, str) else "\n".join(self.cmd)

    def entry(self, name: str) -> StageEntry:
        params: dict[str, Any] = {}
        for values in self.params.values():
            params |= values
        deps = {entry.path: entry.entry() for entry in self.deps}
        outs = {entry.path: entry.entry() for entry in self.outs}
        return StageEntry(name, self.command, deps, params, outs)


class _Lock(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    version: Literal["2.0"] = Field(alias="schema")
    stages: Annotated[dict[Text, _Stage], Field(min_length=1)]
    datasets: Any = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        outs = (entry.path for stage in self.stages.values() for entry in stage.outs)
        _once(outs, "the output")
        return self


class _Pin(BaseModel):
    """A `.dvc` file that `dvc add` wrote; further keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    outs: Annotated[list[_Entry], Field(min_length=1, max_length=1)]


def _once(paths: Iterable[str], what: str) -> None:
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {twice[0]} is recorded twice")


def read_lock(content: bytes, where: str) -> Mapping[str, StageEntry]:
    """Parse `dvc.lock`; return its stages by name. An entry that was parsed before is not again.

    Args:
        content: the file's bytes.
        where: the file's name in messages.

    Raises:
        InputError: it is truncated, or a value is missing, has a wrong type or is there twice.
    """
    stages = _by_block(content)
    if stages is not None:
        return stages
    document = parsed(content, where, MEND_LOCK)
    try:
        lock = _Lock.model_validate(document)
    except ValidationError as error:
        raise damaged(where, first_error(error, _Lock), MEND_LOCK) from None
    return MappingProxyType({n: stage.entry(n) for n, stage in lock.stages.items()})


def split(text: str) -> tuple[list[str], str]:
    """Return the lines of each stage of a `dvc.lock`, and what follows the stages.

    There are no stages if the file is not laid out as DVC writes it.
    """
    if not text.startswith(HEAD):
        return [], ""
    body = text.removeprefix(HEAD)
    end = re.search(r"^\S", body, re.MULTILINE)
    tail = body[end.start() :] if end else ""
    before, *blocks = re.split(r"^(?=  \S)", body.removesuffix(tail), flags=re.MULTILINE)
    shared = re.search(r"[&*]id\d", text)  # values that are written once and referred to
    return ([], "") if before or shared else (blocks, tail)


@lru_cache(maxsize=4)
def _by_block(content: bytes) -> Mapping[str, StageEntry] | None:
    """Return the stages, each parsed by itself; None if the whole file must be parsed."""
    try:
        blocks, tail = split(content.decode())
        if not blocks or tail or not blocks[-1].endswith("\n"):
            return None
        stages = [_block_entry(block) for block in blocks]
        _once((stage.name for stage in stages), "the stage")
        _once((path for stage in stages for path in stage.outs), "the output")
    except (ValueError, InputError):  # the whole file gives the better message
        return None
    return MappingProxyType({stage.name: stage for stage in stages})


@lru_cache(maxsize=4096)
def _block_entry(block: str) -> StageEntry:
    lock = _Lock.model_validate(_block_document(block))
    ((name, stage),) = lock.stages.items()
    return stage.entry(name)


@lru_cache(maxsize=4096)
def _block_document(block: str) -> dict[str, Any]:
    return parsed((HEAD + block).encode(), "dvc.lock", MEND_LOCK)


def read_document(content: bytes, where: str) -> dict[str, Any]:
    """Return `dvc.lock` as plain values, checked by `read_lock`; raises as it does.

    The caller must not change the result.
    """
    read_lock(content, where)
    if _by_block(content) is None:
        return parsed(content, where, MEND_LOCK)
    stages: dict[str, Any] = {}
    for block in split(content.decode())[0]:
        stages |= _block_document(block)["stages"]
    return {"schema": "2.0", "stages": stages}


def read_pin(content: bytes, where: str) -> Entry:
    """Parse `data.dvc`; return the folder that it pins.

    Raises:
        InputError: as `read_lock`.
    """
    try:
        entry = _Pin.model_validate(parsed(content, where, MEND_PIN)).outs[0].entry()
    except ValidationError as error:
        raise damaged(where, first_error(error, _Pin), MEND_PIN) from None
    if entry.path != PINNED:
        raise damaged(where, f"pins {entry.path!r}, not {PINNED!r}", MEND_PIN)
    return entry
