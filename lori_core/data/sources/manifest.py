"""The manifest of a pull: what each task's data was read from, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lori_core.config import SourceSection
from lori_core.core.errors import DataError
from lori_core.core.files.atomic import digest, read_object
from lori_core.data.sources import readers

MANIFEST = "manifest.json"
#: In the entry of a hub source that names no revision: the pull chose its commit.
CHOSEN = "revision_chosen"
#: The fields that define a source; its entry in a manifest has more.
_KEYS = SourceSection.model_fields.keys()


def former(path: Path) -> dict[str, Any]:
    """Return the manifest of the last pull; without tasks if there is none.

    Raises:
        DataError: the manifest is damaged.
    """
    if not path.is_file():
        return {"tasks": {}}
    before = read_object(path)
    try:
        names = [name for task in before["tasks"].values() for name in task["splits"]]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("splits have names")
        pins(before)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: damaged: it does not say what was pulled ({error!r:.100}); restore it (dvc "
            "checkout), or move its folder away and pull again"
        ) from None
    return before


def pins(before: Mapping[str, Any]) -> dict[str, str]:
    """Return the commits that a pull chose, by the definition of their source (`definition`).

    Manifests of earlier versions do not say who chose a commit, and count as if the pull had.
    """
    sources = [source for task in before["tasks"].values() for source in task["sources"]]
    hub = [source for source in sources if source["kind"] == "hub"]
    return {definition(s): s["revision"] for s in hub if s.get(CHOSEN, True)}


def pinned(source: SourceSection, commits: Mapping[str, str]) -> SourceSection:
    """Return a source of the hub at the commit that an earlier pull chose for it, if one did.

    Args:
        source: the source; one that names a revision is returned as it is.
        commits: from `pins`.
    """
    known = source.model_dump(mode="json", exclude_defaults=True)
    commit = commits.get(definition(known))
    if source.revision is not None or commit is None:
        return source
    return source.model_copy(update={"revision": commit})


def definition(source: Mapping[str, Any]) -> str:
    """Return the digest of what a section or an entry of a manifest says besides its revision."""
    known = {key: source[key] for key in _KEYS & source.keys() if key != "revision"}
    return digest(dict(sorted(known.items())))


def is_of(entry: Mapping[str, Any], sources: Sequence[SourceSection]) -> bool:
    """Return whether a task's entry is of these sources."""
    current = [source.model_dump(mode="json", exclude_defaults=True) for source in sources]
    pulled, extensions = entry["sources"], [readers.extension_of(source) for source in sources]
    if extensions != [old.get(readers.EXTENSION, {}) for old in pulled]:
        return False
    return len(current) == len(pulled) and all(
        {key: old.get(key) for key in _KEYS & old.keys() if key != "revision" or key in source}
        == source
        for source, old in zip(current, pulled, strict=True)
    )
