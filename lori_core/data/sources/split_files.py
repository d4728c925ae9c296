"""Find the files of a local source, and the split that each belongs to."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from lori_core.config import SourceSection
from lori_core.core.errors import ConfigError, DataError
from lori_core.data.sources.record_files import ENDINGS

#: The beginnings of the names of a split's files in a folder, as `train.csv` or
#: `train-00000-of-00002.parquet`.
NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
#: The folders of data sets with two names: this project's, and that of LLM-Adapters' repository,
#: which holds them in its folder `dataset`.
_PUBLISHED = {
    "$LORI_DATASETS/nlu/social-i-qa": "social_i_qa",
    "$LORI_DATASETS/nlu/arc-easy": "ARC-Easy",
    "$LORI_DATASETS/nlu/arc-challenge": "ARC-Challenge",
}


def root_of(source: SourceSection, where: str) -> Path:
    """Return the folder, file or glob pattern of a local source, with its `$VARIABLES` replaced.

    Raises:
        ConfigError: there is no path, or a variable is not set.
    """
    if not source.path:
        raise ConfigError(f"{where}.path: a local source needs a folder or file")
    expanded = _expanded(source.path)
    if "$" in str(expanded):
        name = str(expanded).split("$", 1)[1].split("/", 1)[0]
        raise ConfigError(
            f"{where}.path: {source.path}: the variable {name} is not set; set it to the folder "
            "that holds the data sets"
        )
    other = _PUBLISHED.get(source.path)
    if other and not expanded.exists():
        folders = (expanded.parent / other, expanded.parent.parent / other)
        return next((folder for folder in folders if folder.is_dir()), expanded)
    return expanded


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(path)).expanduser()


def split_files(source: SourceSection, where: str) -> list[tuple[str, Path]]:
    """Return the split and path of each file of a local source.

    Raises:
        ConfigError: `path` or `files` is missing, contradictory, or names a file twice.
        DataError: a file or folder does not exist.
    """
    root = root_of(source, where)
    if root.is_dir():
        files = _named(source, root, where) if source.files else _in_folder(source, root, where)
    elif source.files and _matching(root):
        kind = "one file" if root.is_file() else "a pattern of files"
        raise ConfigError(f"{where}.files: {root} is {kind}; name its folder in {where}.path")
    else:
        files = [("train", path) for path in _matching(root)]
    if not files:
        what = (
            "no such file or folder" if glob.escape(str(root)) == str(root) else "no file matches"
        )
        raise DataError(f"{where}.path: {root}: {what}")
    if source.split is not None and {split for split, _ in files} != {"train"}:
        raise ConfigError(
            f"{where}.split: the source has files of other splits, too; name all its files under "
            f"{where}.files.train, or remove split"
        )
    return files


def paths_of(source: SourceSection) -> list[Path]:
    """Return a local source's folder (or file) and the files that it names, also missing ones."""
    if not source.path:
        return []
    root = _expanded(source.path)
    names = [name for named in source.files.values() for name in _listed(named)]
    matching = [path for name in names for path in _matching(root / name)]
    return [root, *_matching(root), *(root / name for name in names), *matching]


def _matching(pattern: Path) -> list[Path]:
    """Return the path itself if it exists, otherwise the files that match it as a glob pattern."""
    if os.path.lexists(pattern):
        return [pattern]
    # Path.glob cannot search an absolute pattern.
    found = map(Path, glob.glob(str(pattern), recursive=True))  # noqa: PTH207
    return sorted(path for path in found if not path.is_dir())


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _named(source: SourceSection, root: Path, where: str) -> list[tuple[str, Path]]:
    """Return the files that `files` names."""
    files: dict[Path, str] = {}
    for split, names in source.files.items():
        for name in _listed(names):
            found = _matching(root / name)
            if not found or not all(path.is_file() for path in found):
                raise DataError(f"{where}.files: {root / name}: no such file")
            for path in found:
                other = files.setdefault(path, split)
                if other != split:
                    raise ConfigError(
                        f"{where}.files: {path} is named for {other} and for {split}; name it once"
                    )
    return [(split, path) for path, split in files.items()]


def _in_folder(source: SourceSection, root: Path, where: str) -> list[tuple[str, Path]]:
    """Return the files of a folder that are named after a split.

    If `split` decides the splits and no file is named after one, all files of records belong to it.
    """
    here = [path for path in sorted(root.iterdir()) if path.is_file() and _ending(path)]
    files = [(split, path) for split in NAMES for path in here if _is_of(path, split)]
    if not files and source.split is not None:
        files = [("train", path) for path in here]
    if not files:
        raise DataError(
            f"{where}.path: {root}: no train.jsonl, train.csv, train.parquet, … here; name files "
            f"in {where}.files, as {{train: '*.csv'}}"
        )
    for split in NAMES:
        endings = {_ending(path) for of, path in files if of == split}
        if len(endings) > 1:
            raise ConfigError(
                f"{where}.path: {root} has {split} files of several formats ("
                f"{', '.join(sorted(endings))}); name those to read in {where}.files"
            )
    return files


def _is_of(path: Path, split: str) -> bool:
    stem = path.name.removesuffix(_ending(path)).lower()
    return any(stem == name or stem.startswith(f"{name}-") for name in NAMES[split])


def _ending(path: Path) -> str:
    """Return the ending of a file of records; empty for other files."""
    return max((end for end in ENDINGS if path.name.lower().endswith(end)), key=len, default="")


def checksums(
    files: Iterable[tuple[str, Path]], source: SourceSection, where: str
) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path relative to the source's folder."""
    from lori_core.core.files.atomic import sha256_file

    root = root_of(source, where)
    base = root if root.is_dir() else root.parent
    while glob.has_magic(str(base)) and not base.is_dir():
        base = base.parent
    return {Path(os.path.relpath(path, base)).as_posix(): sha256_file(path) for _, path in files}
