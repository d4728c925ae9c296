"""Where a command may write a folder or file: nothing but its own earlier output is ever deleted.

A folder is written when it is missing, empty, or holds exactly what the same command wrote before.
`--force` lets a command replace any other folder, but never one of its inputs, nor what a shell, a
user or a repository stands on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lori_core.core import faults
from lori_core.core.errors import AdapterError, InputError
from lori_core.core.files.atomic import beside, read_json, replaced_file, replaced_folder
from lori_core.models import base_files

#: What marks a repository or a workspace.
_REPOSITORIES = (".git", ".dvc")


@dataclass(frozen=True)
class Kind:
    """What a command writes.

    Attributes:
        command: as the user calls it.
        written: returns the files that the command wrote into a folder, by their paths inside it;
            none where it did not write that folder.
        way_out: what the user can do about a folder that it did not write.
    """

    command: str
    written: Callable[[Path], set[str]]
    way_out: str = "name another folder, or replace this one with --force"


@contextmanager
def claim(
    path: Path, kind: Kind, inputs: Iterable[Path] = (), *, force: bool = False
) -> Iterator[Path]:
    """Yield an empty folder; on success it takes the place of `path`, else `path` stays as it was.

    Args:
        path: the folder that the user named.
        kind: what the command writes.
        inputs: the files and folders that the command reads.
        force: whether a folder that the command did not write is replaced.

    Raises:
        InputError: `path` may not be written, saying why. It is looked at before and after.
    """
    inputs, place = list(inputs), _place(path)
    check(path, kind, inputs, force=force)
    with replaced_folder(place) as work:
        yield work
        check(path, kind, inputs, force=force)


def check(path: Path, kind: Kind, inputs: Iterable[Path] = (), *, force: bool = False) -> None:
    """Refuse a folder that a command may not write; arguments and errors are those of `claim`."""
    place = _place(path)
    for given in inputs:
        _check_input(path, place, given)
    _check_way(path, place, "folder")
    for left in filter(Path.is_dir, beside(place) if place.name else ()):  # will be deleted
        _check_within(left, left)
    if not place.exists():
        return
    _check_standing(path, place)
    foreign = next(_foreign(place, kind.written(place)), None)
    if foreign is None:
        return
    if not force:
        raise InputError(
            f"{path}: exists and is not an empty folder or an earlier output of {kind.command}: it "
            f"holds {foreign}; {kind.way_out}"
        )
    _check_within(path, place)


@contextmanager
def claim_file(path: Path, inputs: Iterable[Path] = (), *, force: bool = False) -> Iterator[Path]:
    """Yield the name of a file to write; on success it takes the place of `path`.

    Args:
        path: the file that the user named.
        inputs: the files and folders that the command reads.
        force: whether a file that is there is replaced.

    Raises:
        InputError: `path` may not be written, saying why. It is looked at before and after.
    """
    inputs, place = list(inputs), _place(path)
    _check_file(path, place, inputs, force=force)
    with replaced_file(place) as work:
        yield work
        _check_file(path, place, inputs, force=force)


def _check_file(path: Path, place: Path, inputs: Iterable[Path], *, force: bool) -> None:
    for given in inputs:
        _check_input(path, place, given)
    _check_way(path, place, "file")
    if place.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    _check_standing(path, place)
    if place.exists() and not force:
        raise InputError(f"{path}: exists already; name another file, or use --force")


def _place(path: Path) -> Path:
    """Return an absolute path; only its last part may still be a link."""
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name


def _check_input(path: Path, place: Path, given: Path) -> None:
    """Refuse an output that is an input, lies in one or holds one, whatever both are called."""
    source = given.resolve()
    others = beside(place) if place.name else ()  # written or moved away on the way
    for out in (place.resolve(), *filter(Path.exists, others)):
        if any(_same(folder, source) for folder in (out, *out.parents)):
            raise InputError(f"{path}: is, or lies in, the input {given}; name another folder")
        if any(_same(out, folder) for folder in source.parents):
            raise InputError(f"{path}: holds the input {given}; name another folder")


def _same(first: Path, second: Path) -> bool:
    """Say whether two paths are one place: on some disks, upper and lower case are one."""
    return first == second or (first.exists() and second.exists() and first.samefile(second))


def _check_way(path: Path, place: Path, kind: str) -> None:
    """Refuse what lies in a repository's own files, a link, and what has no folder to lie in.

    Args:
        path: as the user named it.
        place: where that is.
        kind: `folder` or `file`: what is to be written.
    """
    inside = next((part for part in place.parts if part in _REPOSITORIES), None)
    if inside:
        raise InputError(f"{path}: lies in {inside}, which is git's or DVC's; name another {kind}")
    if place.is_symlink():
        raise InputError(f"{path}: is a link to {place.readlink()}; name the {kind} itself")
    folders = (place, *place.parents) if kind == "folder" else place.parents
    above = next(folder for folder in folders if folder.exists())
    if not above.is_dir():
        where = "is" if above == place else f"{above} is"
        raise InputError(f"{path}: {where} no folder; name a {kind} to write")
    if not os.access(place.parent if above == place else above, os.W_OK | os.X_OK):
        read_only = os.statvfs(above).f_flag & os.ST_RDONLY
        why = "the file system is read-only" if read_only else "no permission"
        raise InputError(f"{path}: nothing can be written there ({why})")
    total, _, free = shutil.disk_usage(above)
    if total and free < faults.FULL_BYTES:
        raise InputError(f"{path}: the disk is full ({free:,} bytes free); free some space")


def _check_standing(path: Path, place: Path) -> None:
    """Refuse what a shell, a user or the system stands on."""
    for name, folder in (("current", Path.cwd()), ("home", Path.home())):
        if any(_same(place, above) for above in (folder.resolve(), *folder.resolve().parents)):
            raise InputError(f"{path}: is, or holds, the {name} folder; name a folder inside it")
    if os.path.ismount(place):
        raise InputError(f"{path}: is a mount point; name a folder inside it")


def _check_within(path: Path, place: Path) -> None:
    """Refuse to delete a folder with a repository or another disk in it."""
    for folder, folders, files in os.walk(place, onerror=_unreadable):
        for name in sorted([*folders, *files]):
            found = Path(folder, name)
            if name in _REPOSITORIES:
                raise InputError(f"{path}: holds {found.relative_to(place)}; delete it yourself")
            if found.is_mount():
                raise InputError(f"{path}: {found} is a mount point; delete it yourself")


def _foreign(place: Path, known: set[str]) -> Iterator[str]:
    """Yield what is in a folder besides some plain files, in the order of names."""
    for folder, folders, files in os.walk(place, onerror=_unreadable):
        folders.sort()
        here = Path(folder).relative_to(place)
        for name in sorted(files):
            path = (here / name).as_posix()
            if path not in known or not _plain(Path(folder, name)):
                yield path
        for name in folders:
            if Path(folder, name).is_symlink():
                yield (here / name).as_posix()
        if not folders and not files and here != Path():
            yield f"{here.as_posix()}/"


def _unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror}); name another folder")


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _said(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; an empty one where there is none."""
    try:
        said = read_json(path)
    except InputError:
        return {}
    return said if isinstance(said, dict) else {}


def _merged(folder: Path) -> set[str]:
    said = _said(folder / "adapter.json")
    info = said.get("info")
    ours = str(said.get("format")).startswith("lori-adapter/")
    merged = ours and isinstance(info, dict) and "recipe" in info
    return {"adapter.json", "adapter.safetensors"} if merged else set()


def _peft(folder: Path) -> set[str]:
    files = {"adapter_config.json", "adapter_model.safetensors"}
    if str(_said(folder / "tuned.json").get("format")).startswith("lori-tuned/"):
        return files | {"tuned.json"}
    return files if _marked(folder / "adapter_model.safetensors") else set()


def _marked(path: Path) -> bool:
    """Say whether a PEFT file's metadata hold what this project adds."""
    from lori_core.core.files.tensor_file import TensorFile

    try:
        return "lori" in TensorFile(path).metadata
    except AdapterError:
        return False


def _extracted(folder: Path) -> set[str]:
    from lori_core.core.files.json_input import loads
    from lori_core.core.files.tensor_file import TensorFile

    try:
        said = loads(TensorFile(folder / "adapter_model.safetensors").metadata["lori"])
        return _peft(folder) if "extraction" in said["info"] else set()
    except (AdapterError, ValueError, KeyError, TypeError):
        return set()


def _with_card(folder: Path) -> set[str]:
    files = _peft(folder)
    return files | {"README.md"} if files else set()


def _baked(folder: Path) -> set[str]:
    files = _said(folder / base_files.EXPORTED).get("files")
    return {base_files.EXPORTED, *map(str, files)} if isinstance(files, list) else set()


def _evaluation(folder: Path) -> set[str]:
    said = _said(folder / "results.json")
    if not {"scores", "seconds"} <= said.keys():
        return set()
    files = {"results.json"}
    try:
        for row, tasks in said["scores"].items():
            for task, result in tasks.items():
                harness = f"lm-eval.{task.removeprefix('lm-eval/').replace('/', '-')}"
                names = (task, harness, *(f"{task}.{part}" for part in result))
                files |= {f"{row}/{name}.jsonl" for name in names}
    except (AttributeError, TypeError):
        return set()
    return files


def _interference(folder: Path) -> set[str]:
    known = {"pairs", "shared", "modules"} <= _said(folder / "interference.json").keys()
    return {"interference.json", "interference.png"} if known else set()


def _comparison(folder: Path) -> set[str]:
    known = {"models", "scores", "differences"} <= _said(folder / "compare.json").keys()
    return {"index.html", "compare.md", "compare.json"} if known else set()


def _rejudged(folder: Path) -> set[str]:
    models = _said(folder / "rejudged.json").get("models")
    if not isinstance(models, dict):
        return set()
    return {"rejudged.json", "changed.jsonl", *(f"{name}.jsonl" for name in models)}


MERGED = Kind("lori merge", _merged)
PEFT = Kind("lori export --to peft", _peft)
BAKED = Kind("lori export --to merged", _baked)
EXTRACTED = Kind("lori extract", _extracted)
TO_PUSH = Kind("lori push --dry-run", _with_card)
EVALUATION = Kind("lori evaluate", _evaluation)
REJUDGED = Kind("lori rejudge", _rejudged)
INTERFERENCE = Kind("lori interference", _interference)
COMPARISON = Kind("lori compare", _comparison)
#: What is restored may be anything, so nothing tells it from what is not ours.
RESTORED = Kind("lori restore", lambda _: set())
