"""The data of a snapshot as `data.dvc` pins it: its verified files, and what differs from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from flows.lineage.differing import bytes_text, restorable
from flows.lineage.problem import Problem
from flows.versioning.dvc.lock_file import MEND_PIN, PINNED
from flows.versioning.objects import Objects, files_below, folder_md5, md5_of, md5_of_bytes
from flows.versioning.snapshot import DATA, Snapshot
from lori_core.core.files.atomic import sha256_file

MANIFEST = "manifest.json"


class Pinned:
    """The data folder that one snapshot pins."""

    def __init__(self, snapshot: Snapshot, objects: Objects) -> None:
        self.snapshot = snapshot
        self.objects = objects
        pin = snapshot.data
        self.folder = PINNED
        self.md5 = pin.md5 if pin else ""
        self._hashes: dict[str, str] = {}

    def holds(self, path: str) -> bool:
        """Return whether a path of the workspace is the folder or lies in it."""
        return path == self.folder or path.startswith(f"{self.folder}/")

    def inside(self, path: str) -> str:
        """Return a workspace path relative to the folder; empty for the folder itself."""
        return path.removeprefix(self.folder).lstrip("/")

    @cached_property
    def listing(self) -> dict[str, str] | None:
        """The MD5 of each pinned file, by its path in the folder; None if it is not known.

        It is known if the cache or the remote has the listing, or if the folder here is unchanged.
        """
        if not self.md5.endswith(".dir"):
            return None
        listing = self.objects.tree(self.md5)
        if listing is None and self.here and folder_md5(self.here) == self.md5:
            return self.here
        return listing

    @cached_property
    def here(self) -> dict[str, str]:
        """The MD5 of each file in the workspace, by its path in the folder."""
        if not self.snapshot.here:
            return {}
        return {inside: self.hash_of(inside) for inside in files_below(self._root)}

    def hash_of(self, inside: str) -> str:
        """Return the MD5 of a file in the workspace; each file is read once."""
        if inside not in self._hashes:
            self._hashes[inside] = md5_of(self._root / inside)
        return self._hashes[inside]

    @property
    def _root(self) -> Path:
        return self.snapshot.workspace / self.folder

    def below(self, path: str) -> dict[str, str] | None:
        """Return file -> MD5 of the pinned files below a path ('' for a file itself)."""
        inside = self.inside(path)
        if self.listing is None or not inside:
            return self.listing
        if inside in self.listing:
            return {"": self.listing[inside]}
        start = f"{inside}/"
        return {
            name[len(start) :]: md5 for name, md5 in self.listing.items() if name.startswith(start)
        }

    def hash_below(self, path: str) -> str | None:
        """Return DVC's hash of a path in the folder; None if it is not known."""
        if not self.inside(path):
            return self.md5
        files = self.below(path)
        return None if not files else files.get("", "") or folder_md5(files)

    def read(self, inside: str) -> bytes | None:
        """Return a file's pinned bytes from the workspace, cache or remote; None if gone."""
        md5 = (self.listing or {}).get(inside)
        path = self._root / inside
        if md5 is None:
            return None
        if self.snapshot.here and path.is_file():
            content = path.read_bytes()
            if md5_of_bytes(content) == md5:
                return content
        return self.objects.content(md5)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The snapshot's `data/manifest.json`; empty if its bytes are gone or invalid."""
        content = self.read(MANIFEST)
        try:
            manifest = json.loads(content) if content else {}
        except ValueError:
            return {}
        return manifest if isinstance(manifest, dict) else {}

    def problems(self, paths: Iterable[str]) -> Iterator[Problem]:
        """Compare files of data in the workspace, and the manifest, with the pinned ones."""
        paths = list(paths)
        if not paths or not self.snapshot.here:
            return
        if self.snapshot.data is None:
            yield Problem(DATA, f"is missing, so the recorded data is not known; {MEND_PIN}")
        elif self.listing is None:
            yield from self._unlisted(paths)
        else:
            yield from self._pin_problems()
            yield from self._file_problems(self._wanted(paths), self.listing)

    def _wanted(self, paths: Iterable[str]) -> list[str]:
        """Return the files to compare: of a folder both the pinned files and those here."""
        wanted = (
            {MANIFEST} & (self.listing or {}).keys() if (self._root / MANIFEST).is_file() else set()
        )
        for path in paths:
            inside = self.inside(path)
            if (self.snapshot.workspace / path).is_dir():
                start = f"{inside}/" if inside else ""
                known = {*(self.listing or {}), *files_below(self._root)}
                wanted |= {name for name in known if name.startswith(start)}
            elif (self._root / inside).is_file():
                wanted.add(inside)
        return sorted(wanted)

    def _file_problems(
        self, wanted: Iterable[str], listing: Mapping[str, str]
    ) -> Iterator[Problem]:
        pulled = []
        for inside in wanted:
            name, path = f"{self.folder}/{inside}", self._root / inside
            if not path.is_file():
                yield Problem(name, f"is missing; {restorable(name)}")
            elif inside not in listing:
                yield Problem(name, f"does not belong here: {DATA} does not list it")
            elif self.hash_of(inside) == listing[inside]:
                continue
            elif self._pulled_since(inside):
                pulled.append(name)
            else:
                where = bytes_text(self.objects, path, listing[inside])
                yield Problem(name, f"{where}; lori pull or {restorable(name)}")
        if pulled:
            text = f"is older than {', '.join(pulled[:3])}, pulled since; run lori pull"
            yield Problem(DATA, text)

    def _pulled_since(self, inside: str) -> bool:
        """Return whether a split has the hash of the manifest here; for the manifest, any split."""
        if inside == MANIFEST:
            others = (name for name in self.here if name != MANIFEST)
            return any(self._changed(name) and self._pulled_since(name) for name in others)
        path = PurePosixPath(inside)
        try:
            manifest = json.loads((self._root / MANIFEST).read_bytes())
            split = manifest["tasks"][path.parent.name]["splits"][path.stem]
            return bool(split["sha256"] == sha256_file(self._root / inside))
        except (OSError, KeyError, ValueError, TypeError):
            return False

    def _changed(self, inside: str) -> bool:
        return (self.listing or {}).get(inside) != self.hash_of(inside)

    def _pin_problems(self) -> Iterator[Problem]:
        """Compare the counts of `data.dvc` with the files behind its hash."""
        pin, listing = self.snapshot.data, self.listing or {}
        if pin is None:
            return
        if pin.files != len(listing):
            text = f"records {pin.files} files, but pins {len(listing)}"
            yield Problem(DATA, f"{text}; {MEND_PIN}")
        sizes = [self._size(inside, md5) for inside, md5 in listing.items()]
        if None not in sizes and sum(filter(None, sizes)) != pin.size:
            total = sum(filter(None, sizes))
            yield Problem(DATA, f"records {pin.size} bytes, but pins {total}; {MEND_PIN}")

    def _size(self, inside: str, md5: str) -> int | None:
        """Return a pinned file's size in bytes; None if there is no local copy."""
        path = self.objects.cached(md5)
        if path is None and self.here.get(inside) == md5:
            path = self._root / inside
        return path.stat().st_size if path else None

    def _unlisted(self, paths: Iterable[str]) -> Iterator[Problem]:
        """Find what is wrong if the files are not the pinned ones and their listing is gone."""
        if not self.here:
            return
        whole, read = folder_md5(self.here), self._read_by_stages()
        if whole in read.get(self.folder, ()):
            text = f"pins {self.md5}, but the files here, which stages read, are {whole}"
            yield Problem(DATA, f"{text}; {MEND_PIN}")
            return
        changed = [
            path
            for path in paths
            if self.inside(path) in self.here
            and self.here[self.inside(path)] not in read.get(path, {self.here[self.inside(path)]})
        ]
        for path in changed:
            text = f"is not what stages read ({', '.join(sorted(read[path]))})"
            yield Problem(path, f"{text}; lori pull or {restorable(path)}")
        if not changed:
            yield Problem(
                self.folder,
                f"is not what {DATA} pins ({self.md5}); which file changed is not known: the "
                "listing is neither in the cache nor in the remote; dvc fetch, or lori pull",
            )

    def _read_by_stages(self) -> dict[str, set[str]]:
        hashes: dict[str, set[str]] = {}
        for stage in self.snapshot.stages.values():
            for path, dep in stage.deps.items():
                hashes.setdefault(path, set()).add(dep.md5)
        return hashes
