"""Records of finished points: measurements, machine, versions, and the key of what decided them.

`experiments/finished/NAME.json` is the record of one point. Its key is a digest of the point's
settings, its code, its data, the base model's content, and the keys of its parents: what DVC
compares, for machines without DVC. A record is valid if its key is that of the point now. The
records of several machines can be copied into one folder; no model is needed for their rows.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import studies
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import digest, read_object, sha256_file, write_json
from studies import stages
from studies.points import FACTS, FOLDER, Point, folder_of
from studies.results import Row, facts_of

FINISHED = FOLDER / "finished"
#: The folder of the packages, which the paths of a point's code are relative to.
ROOT = Path(studies.__file__).parents[1]


@dataclass(frozen=True)
class Record:
    """A finished point.

    Attributes:
        point: its name.
        key: the digest of what decided its result.
        facts: its measurements, the content of its `facts.json`.
        machine: the GPU or CPU that it ran on.
        versions: the versions of Python and packages, by name.
        seconds: how long it took.
        finished: when it finished, in seconds since 1970.
    """

    point: str
    key: str
    facts: Row
    machine: str
    versions: dict[str, str]
    seconds: float
    finished: float


class Records:
    """The valid records of some points."""

    def __init__(
        self, points: Mapping[str, Point], extensions: Mapping[str, Collection[str]]
    ) -> None:
        """Read the records of the points.

        Args:
            points: all points by name.
            extensions: for each extension file, the kinds of extensions it registers.

        Raises:
            InputError: a record cannot be read.
        """
        self._points = points
        self._extensions = extensions
        self._keys: dict[str, str] = {}
        read = (_read(name, self.key_of(name)) for name, p in points.items() if p.kind != "collect")
        self.by_name = {record.point: record for record in read if record is not None}

    def key_of(self, name: str) -> str:
        """Return the digest of what decides a point's result."""
        if name not in self._keys:
            point = self._points[name]
            inputs = {path: _sha256(Path(path)) for path in stages.data_of(point)}
            inputs |= {path: _sha256(ROOT / path) for path in stages.code_of(point.kind)}
            files = stages.extensions_of(point.kind, self._extensions)
            inputs |= {path: _sha256(Path(path)) for path in files}
            parents = {parent: self.key_of(parent) for parent in point.parents}
            settings = point.model_dump(mode="json")
            self._keys[name] = digest({"point": settings, "inputs": inputs, "parents": parents})
        return self._keys[name]

    def has_files(self, name: str) -> bool:
        """Return whether a recorded point's files are here, and not those of another run."""
        if not (folder_of(name) / FACTS).is_file():
            return False
        return facts_of(name) == self.by_name[name].facts

    def add(self, name: str, machine: str, versions: dict[str, str], seconds: float) -> None:
        """Write the record of a point that has just finished."""
        key, facts = self.key_of(name), facts_of(name)
        record = Record(name, key, facts, machine, versions, seconds, time.time())
        write_json(_path(name), asdict(record))
        self.by_name[name] = record


def _path(name: str) -> Path:
    return FINISHED / f"{name}.json"


def _read(name: str, key: str) -> Record | None:
    """Return a point's record; None if there is none, or if it is of other code, data or settings.

    Raises:
        InputError: the file is not a record of this point.
    """
    path = _path(name)
    if not path.is_file():
        return None
    content = read_object(path)
    if content.get("key") != key:
        return None
    if set(content) != {field.name for field in fields(Record)} or content["point"] != name:
        raise InputError(f"{path}: is no record of this point; delete it, and the point runs again")
    return Record(**content)


@cache
def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or a digest of all files of a folder."""
    if path.is_file():
        return sha256_file(path)
    files = (p for p in sorted(path.rglob("*")) if p.is_file() and p.suffix != ".pyc")
    return digest({p.relative_to(path).as_posix(): sha256_file(p) for p in files})


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results may depend on."""
    from lori_core.core.tracking import PACKAGES, where

    facts: dict[str, Any] = where()
    return {name: str(facts[name]) for name in ("python", *PACKAGES) if name in facts}
