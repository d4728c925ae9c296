"""Check where a command may write; it deletes nothing but its own earlier output.

A folder may be written if it is missing, empty, or holds exactly the files that the same command
wrote before. With `--force` a command replaces any other folder, except its inputs, the current
and the home folder, mount points, and folders with a git or DVC repository.
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

#: The files of an export in PEFT's format.
_EXPORTED = ("adapter_config.json", "adapter_model.safetensors")
#: Folders that mark a git or DVC repository.
_REPOSITORIES = (".git", ".dvc")


@dataclass(frozen=True)
class Kind:
    """The output of one command.

    Attributes:
        command: the command line that writes it.
        written: returns the files that the command wrote into a folder, as paths inside it; an
            empty set if the command did not write that folder.
        remedy: what the user can do if another program wrote the folder.
    """

    command: str
    written: Callable[[Path], set[str]]
    remedy: str = "name another folder, or replace this one with --force"


@contextmanager
def claim(
    path: Path, kind: Kind, inputs: Iterable[Path] = (), *, force: bool = False
) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` on success; on failure `path` is unchanged.

    Args:
        path: the folder that the user named.
        kind: the command's output.
        inputs: the files and folders that the command reads.
        force: whether to replace a folder that the command did not write.

    Raises:
        InputError: `path` may not be written; checked before and after the work.
    """
    inputs, place = list(inputs), _place(path)
    check(path, kind, inputs, force=force)
    with replaced_folder(place) as work:
        yield work
        check(path, kind, inputs, force=force)


def check(path: Path, kind: Kind, inputs: Iterable[Path] = (), *, force: bool = False) -> None:
    """Refuse a folder that a command may not write; arguments and errors are those of `claim`."""
    place = _place(path)
    for input_path in inputs:
        _check_input(path, place, input_path)
    _check_place(path, place, "folder")
    for left in filter(Path.is_dir, beside(place) if place.name else ()):  # will be deleted
        _check_contents(left, left)
    if not place.exists():
        return
    _check_in_use(path, place)
    foreign = next(_foreign(place, kind.written(place)), None)
    if foreign is None:
        return
    if not force:
        raise InputError(
            f"{path}: exists and is not an empty folder or an earlier output of {kind.command}: it "
            f"holds {foreign}; {kind.remedy}"
        )
    _check_contents(path, place)


@contextmanager
def claim_file(path: Path, inputs: Iterable[Path] = (), *, force: bool = False) -> Iterator[Path]:
    """Yield the path of a new file that replaces `path` on success.

    Args:
        path: the file that the user named.
        inputs: the files and folders that the command reads.
        force: whether to replace an existing file.

    Raises:
        InputError: `path` may not be written; checked before and after the work.
    """
    inputs, place = list(inputs), _place(path)
    _check_file(path, place, inputs, force=force)
    with replaced_file(place) as work:
        yield work
        _check_file(path, place, inputs, force=force)


def _check_file(path: Path, place: Path, inputs: Iterable[Path], *, force: bool) -> None:
    for input_path in inputs:
        _check_input(path, place, input_path)
    _check_place(path, place, "file")
    if place.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    _check_in_use(path, place)
    if place.exists() and not force:
        raise InputError(f"{path}: exists already; name another file, or use --force")


def _place(path: Path) -> Path:
    """Return the absolute path, with symbolic links resolved in all but its last part."""
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name


def _check_input(path: Path, place: Path, input_path: Path) -> None:
    """Refuse an output that is an input, lies in one or holds one, also through links."""
    source = input_path.resolve()
    others = beside(place) if place.name else ()  # temporary names that are written or deleted
    for out in (place.resolve(), *filter(Path.exists, others)):
        if any(_same(folder, source) for folder in (out, *out.parents)):
            raise InputError(f"{path}: is, or lies in, the input {input_path}; name another folder")
        if any(_same(out, folder) for folder in source.parents):
            raise InputError(f"{path}: holds the input {input_path}; name another folder")


def _same(first: Path, second: Path) -> bool:
    """Return whether two paths are the same file, also on a case-insensitive file system."""
    return first == second or (first.exists() and second.exists() and first.samefile(second))


def _check_place(path: Path, place: Path, kind: str) -> None:
    """Refuse a path inside `.git` or `.dvc`, a link, and a path that cannot be created.

    Args:
        path: the path as the user wrote it, for messages.
        place: its absolute form.
        kind: what is to be written, `folder` or `file`.
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


def _check_in_use(path: Path, place: Path) -> None:
    """Refuse the current folder, the home folder, their parents, and mount points."""
    for name, folder in (("current", Path.cwd()), ("home", Path.home())):
        if any(_same(place, above) for above in (folder.resolve(), *folder.resolve().parents)):
            raise InputError(f"{path}: is, or holds, the {name} folder; name a folder inside it")
    if os.path.ismount(place):
        raise InputError(f"{path}: is a mount point; name a folder inside it")


def _check_contents(path: Path, place: Path) -> None:
    """Refuse to delete a folder that contains a repository or a mount point."""
    for folder, folders, files in os.walk(place, onerror=_unreadable):
        for name in sorted([*folders, *files]):
            entry = Path(folder, name)
            if name in _REPOSITORIES:
                raise InputError(f"{path}: holds {entry.relative_to(place)}; delete it yourself")
            if entry.is_mount():
                raise InputError(f"{path}: {entry} is a mount point; delete it yourself")


def _foreign(place: Path, known: set[str]) -> Iterator[str]:
    """Yield the paths in a folder that are not regular files among `known`, sorted by name."""
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


def _read_object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; an empty one if it cannot be read."""
    try:
        content = read_json(path)
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}


def _merge_files(folder: Path) -> set[str]:
    content = _read_object(folder / "adapter.json")
    info = content.get("info")
    ours = str(content.get("format")).startswith("lori-adapter/")
    merged = ours and isinstance(info, dict) and "recipe" in info
    return {"adapter.json", "adapter.safetensors"} if merged else set()


def _peft_files(folder: Path) -> set[str]:
    info = _info_of_export(folder)
    return set() if info is None or "extraction" in info else set(_EXPORTED)


def _extracted_files(folder: Path) -> set[str]:
    info = _info_of_export(folder)
    return set() if info is None or "extraction" not in info else set(_EXPORTED)


def _info_of_export(folder: Path) -> dict[str, Any] | None:
    """Return the `info` of the adapter that this project exported as a PEFT folder; else None."""
    from lori_core.core.files.json_input import loads
    from lori_core.core.files.tensor_file import TensorFile

    try:
        info = loads(TensorFile(folder / "adapter_model.safetensors").metadata["lori"])["info"]
    except (AdapterError, ValueError, KeyError, TypeError):
        return None
    return info if isinstance(info, dict) else None


def _push_files(folder: Path) -> set[str]:
    """Return the files of an export, or of a result in PEFT's format, with the card beside them."""
    if not (folder / "README.md").is_file():
        return set()
    if str(_read_object(folder / "tuned.json").get("format")).startswith("lori-tuned/"):
        return {*_EXPORTED, "tuned.json", "README.md"}
    return set() if _info_of_export(folder) is None else {*_EXPORTED, "README.md"}


def _merged_base_files(folder: Path) -> set[str]:
    files = _read_object(folder / base_files.EXPORTED).get("files")
    return {base_files.EXPORTED, *map(str, files)} if isinstance(files, list) else set()


def _evaluation_files(folder: Path) -> set[str]:
    results = _read_object(folder / "results.json")
    if not {"scores", "seconds"} <= results.keys():
        return set()
    files = {"results.json"}
    try:
        for row, tasks in results["scores"].items():
            for task, result in tasks.items():
                harness = f"lm-eval.{task.removeprefix('lm-eval/').replace('/', '-')}"
                names = (task, harness, *(f"{task}.{part}" for part in result))
                files |= {f"{row}/{name}.jsonl" for name in names}
    except (AttributeError, TypeError):
        return set()
    return files


def _interference_files(folder: Path) -> set[str]:
    known = {"pairs", "shared", "modules"} <= _read_object(folder / "interference.json").keys()
    return {"interference.json", "interference.png"} if known else set()


def _comparison_files(folder: Path) -> set[str]:
    known = {"models", "scores", "differences"} <= _read_object(folder / "compare.json").keys()
    return {"index.html", "compare.md", "compare.json"} if known else set()


def _rejudge_files(folder: Path) -> set[str]:
    models = _read_object(folder / "rejudged.json").get("models")
    if not isinstance(models, dict):
        return set()
    return {"rejudged.json", "changed.jsonl", *(f"{name}.jsonl" for name in models)}


MERGED = Kind("lori merge", _merge_files)
PEFT = Kind("lori export --to peft", _peft_files)
MERGED_BASE = Kind("lori export --to merged", _merged_base_files)
EXTRACTED = Kind("lori extract", _extracted_files)
TO_PUSH = Kind("lori push --dry-run", _push_files)
EVALUATION = Kind("lori evaluate", _evaluation_files)
REJUDGED = Kind("lori rejudge", _rejudge_files)
INTERFERENCE = Kind("lori interference", _interference_files)
COMPARISON = Kind("lori compare", _comparison_files)
#: A restored folder may hold any files, so it is never recognised as the command's own output.
RESTORED = Kind("lori restore", lambda _: set())
