"""The rows of a model's scores, in metrics and as folders of verdicts: one for each model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lori_core.core.errors import DataError

#: The adapter that a task's method trained, whatever the method.
ADAPTER = "adapter"
#: The LoRI-D adapter that a task's mask was taken from.
CALIBRATED = "lori-d"
#: What version 0.1.0 called the row `ADAPTER`, whatever the method.
FORMER = "lori-s"


def row_of(artifact: str, rows: Collection[str]) -> str:
    """Return the row that is about an artifact, among those of one evaluation.

    Args:
        artifact: its path, as in `artifacts/math/calibrated`.
        rows: at least one; those of version 0.1.0 are known by their former names.
    """
    if len(rows) == 1:
        return next(iter(rows))
    if artifact.endswith("/calibrated"):
        return CALIBRATED
    return ADAPTER if ADAPTER in rows else FORMER


def check(rows: Mapping[str, Any], path: Path) -> None:
    """Refuse metrics of version 0.1.0, whose verdicts lie in folders of other names.

    Raises:
        DataError: naming the file.
    """
    if FORMER in rows and ADAPTER not in rows:
        raise DataError(
            f"{path}: has the row {FORMER!r} of version 0.1.0, which is {ADAPTER!r} now; lori run "
            "makes it again"
        )
