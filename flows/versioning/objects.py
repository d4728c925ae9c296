"""Find and read the bytes of a DVC hash, in the cache or in the remote."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from flows.environment import quiet_environment
from flows.versioning import workspace as versioned
from flows.versioning.dvc import dvc_files
from lori_core.adapters import output_folder
from lori_core.core.errors import InputError, LoriError

CHUNK = 1 << 20


class Objects:
    """The cache and the default remote of one workspace."""

    def __init__(self, workspace: Path, *, remote: bool = True) -> None:
        self.workspace = workspace
        self._use_remote = remote
        #: Why the remote could not be reached; empty if it was not tried or answered.
        self.remote_failure = ""
        self._trees: dict[str, dict[str, str] | None] = {}

    @cached_property
    def repo(self) -> Any:
        """The workspace's DVC repository."""
        quiet_environment()
        dvc_files.check(self.workspace)
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            return Repo(str(self.workspace))
        except DvcException as error:
            versioned.check(self.workspace)  # may raise a better message
            raise InputError(f"{self.workspace}: {' '.join(str(error).split())}") from None

    @cached_property
    def _cache(self) -> Path:
        return Path(self.repo.cache.local.path)

    @cached_property
    def _remote(self) -> Any:
        """The default remote's object database; None if there is none or it fails."""
        if not self._use_remote or not self.repo.config["core"].get("remote"):
            return None
        try:
            return self.repo.cloud.get_remote_odb()
        except Exception as error:  # whatever a storage's client raises
            self.remote_failure = _first_line(error)
            return None

    def cached(self, md5: str) -> Path | None:
        """Return the cache's file of a hash; None if the cache does not have it."""
        path = self._cache / md5[:2] / md5[2:]
        return path if len(md5) > 2 and path.is_file() else None

    def in_remote(self, hashes: Iterable[str]) -> set[str]:
        """Return the hashes that the remote holds; empty if it cannot be reached."""
        wanted = sorted(set(hashes))
        if self._remote is None or not wanted:
            return set()
        try:
            return set(self._remote.oids_exist(wanted, jobs=8))
        except Exception as error:  # whatever a storage's client raises
            self.remote_failure = _first_line(error)
            return set()

    def tree(self, md5: str) -> dict[str, str] | None:
        """Return file -> hash for a folder's hash (`….dir`); None if its listing is missing.

        Raises:
            LoriError: the listing in the cache is damaged, and the remote has no other.
        """
        if md5 not in self._trees:
            content = self.content(md5)
            if content is None and self.cached(md5):
                raise LoriError(
                    f"{self.cached(md5)}: damaged: this listing in DVC's cache does not have the "
                    "MD5 of its name; delete it, then run dvc fetch, or lori run to make it again"
                )
            self._trees[md5] = None if content is None else _listing(content, md5)
        return self._trees[md5]

    def files(self, md5: str) -> dict[str, str] | None:
        """Return file -> hash for a hash: a folder's files by their path, a file under ''."""
        return self.tree(md5) if md5.endswith(".dir") else {"": md5}

    def content(self, md5: str) -> bytes | None:
        """Return the bytes of a hash from cache or remote; None if there is no intact copy."""
        for source in self._sources(md5):
            try:
                with source as reader:
                    content: bytes = reader.read()
            except Exception:  # noqa: S112 - whatever a storage's client raises
                continue
            if md5_of_bytes(content) == md5.removesuffix(".dir"):
                return content
        return None

    def presence(self, hashes: Iterable[str]) -> dict[str, str]:
        """Return for each hash `cache`, `remote` or `gone`; a folder's with all its files."""
        wanted = list(dict.fromkeys(hashes))
        parts = {md5: [md5, *(self.files(md5) or {}).values()] for md5 in wanted}
        missing = {part for those in parts.values() for part in those if not self.cached(part)}
        remote = self.in_remote(missing)
        places = {}
        for md5, those in parts.items():
            absent = missing.intersection(those)
            places[md5] = "cache" if not absent else "remote" if absent <= remote else "gone"
        return places

    def restore(
        self,
        md5: str,
        out: Path,
        what: str,
        *,
        force: bool = False,
        files: Mapping[str, str] | None = None,
    ) -> int:
        """Write the bytes of a hash to a file or folder; return the number of bytes.

        The MD5 of a folder's listing and of each file is checked.

        Args:
            md5: the hash.
            out: the file or folder to write.
            what: the name of the output in messages.
            force: whether to replace `out` if it exists.
            files: the hash's files as `files` returns them; None to look them up. DVC keeps no
                listing of a folder inside a folder that it hashed.

        Raises:
            InputError: `out` exists and `force` is false, or `out` may not be replaced at all.
            LoriError: a file is neither in the cache nor in the remote, or damaged there.
        """
        if not force and (out.exists() or out.is_symlink()):
            raise InputError(
                f"{out}: exists already; name a path that is not there yet, or use --force"
            )
        listed = self.files(md5) if files is None else files
        if listed is None:
            raise LoriError(self._gone(what, md5))
        if "" in listed:
            with output_folder.claim_file(out, self._folders(), force=force) as work:
                return self._copy(md5, work, what)
        kind = output_folder.RESTORED
        with output_folder.claim(out, kind, self._folders(), force=force) as work:
            return sum(self._copy(part, work / name, what) for name, part in listed.items())

    def _folders(self) -> list[Path]:
        """Return the local folders that bytes are read from."""
        folders = [self._cache]
        if self._remote is not None and self._remote.fs.protocol == "local":
            folders.append(Path(self._remote.path))
        return folders

    def _copy(self, md5: str, target: Path, what: str) -> int:
        target.parent.mkdir(parents=True, exist_ok=True)
        damaged = ""
        for source in self._sources(md5):
            digest, size = hashlib.md5(usedforsecurity=False), 0
            with source as reader, target.open("wb") as writer:
                while chunk := reader.read(CHUNK):
                    digest.update(chunk)
                    size += writer.write(chunk)
            if digest.hexdigest() == md5.removesuffix(".dir"):
                return size
            damaged = f" (a copy exists but is damaged: its MD5 is {digest.hexdigest()})"
        raise LoriError(self._gone(what, md5) + damaged)

    def _sources(self, md5: str) -> Iterator[Any]:
        path = self.cached(md5)
        if path is not None:
            yield path.open("rb")
        if self._remote is not None:
            with contextlib.suppress(Exception):  # gone there, or not reachable
                yield self._remote.fs.open(self._remote.oid_to_path(md5), "rb")

    def _gone(self, what: str, md5: str) -> str:
        if self.remote_failure:
            where = f"the remote cannot be reached ({self.remote_failure})"
        elif self._remote is None:
            where = "no remote is set (dvc remote add -d NAME URL)"
        else:
            where = "nor in the remote"
        return (
            f"{what}: {md5} is not in the cache, {where}; make it again with lori run, or copy the "
            "cache of the machine that made it"
        )


def md5_of_bytes(content: bytes) -> str:
    """Return the MD5 of some bytes in hexadecimal, DVC's hash."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def md5_of(path: Path) -> str:
    """Return the MD5 of a file in hexadecimal, DVC's hash."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def folder_md5(files: Mapping[str, str]) -> str:
    """Return DVC's hash of a folder from file -> hash."""
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    return md5_of_bytes(json.dumps(listed, sort_keys=True).encode()) + ".dir"


def hash_on_disk(path: Path) -> str | None:
    """Return DVC's hash of a file or folder as it is; None if it does not exist."""
    if not path.is_dir():
        return md5_of(path) if path.is_file() else None
    return folder_md5({name: md5_of(file) for name, file in files_below(path).items()})


def files_below(path: Path) -> dict[str, Path]:
    """Return a folder's files by their path in it; a file itself under ''.

    Temporary files of killed processes (`.….new`) are left out, as in `.dvcignore`.
    """
    if path.is_file():
        return {"": path}
    inside = {item.relative_to(path): item for item in sorted(path.rglob("*")) if item.is_file()}
    return {
        place.as_posix(): item
        for place, item in inside.items()
        if not any(part.startswith(".") and part.endswith(".new") for part in place.parts)
    }


def _listing(content: bytes, md5: str) -> dict[str, str]:
    """Return file -> hash of a folder's listing; refuse paths that lead out of the folder."""
    try:
        files = {str(item["relpath"]): str(item["md5"]) for item in json.loads(content)}
    except (ValueError, KeyError, TypeError):
        files = {"/": ""}
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or not path.parts or ".." in path.parts:
            raise LoriError(f"{md5}: not a folder's listing that DVC wrote (it names {name!r})")
    return files


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
