"""Names of base models: their labels, and the folders of their rows."""

from __future__ import annotations

import re
from pathlib import Path

from lori_core.core.files.atomic import digest

#: The name of the folder of rows, and of pages, of the bases that `lori experiment --base` named.
FOLDER = "bases"


def base_label(name: str, revision: str | None) -> str:
    """Return the label of a base model: `NAME`, or `NAME@REVISION` if it has a revision."""
    return f"{name}@{revision}" if revision else name


def split_base(label: str) -> tuple[str, str | None]:
    """Return the name and the revision of a base's label; a revision is 40 hexadecimal digits."""
    parts = re.fullmatch(r"(.+)@([0-9a-f]{40})", label)
    if parts is None or Path(label).expanduser().is_dir():
        return label, None
    return parts[1], parts[2]


def base_folder(label: str) -> str:
    """Return the name of the folder of a base's rows, from the base's label.

    Stages have it in their names, so it consists of letters, digits and -. The digest tells bases
    apart whose names differ in other characters only.
    """
    readable = re.sub(r"[^A-Za-z0-9]+", "-", label.rstrip("/")).strip("-")[-40:].strip("-")
    return f"{readable}-{digest(label)[:8]}".strip("-")
