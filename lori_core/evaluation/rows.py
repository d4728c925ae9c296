"""Names of the rows of an evaluation: one for each model, in metrics and as folders of verdicts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lori_core.core.errors import DataError

#: The row of a task's adapter, for every fine-tuning method.
ADAPTER = "adapter"
#: The row of the LoRI-D adapter of the calibration run.
CALIBRATED = "lori-d"
#: The name of the row `ADAPTER` in version 0.1.0.
FORMER = "lori-s"


def row_of(artifact: str, rows: Collection[str]) -> str:
    """Return the name of an artifact's row in an evaluation.

    Args:
        artifact: the artifact's path, such as `artifacts/math/calibrated`.
        rows: the row names of the evaluation, at least one; names of version 0.1.0 are accepted.
    """
    if len(rows) == 1:
        return next(iter(rows))
    if artifact.endswith("/calibrated"):
        return CALIBRATED
    return ADAPTER if ADAPTER in rows else FORMER


def check(rows: Mapping[str, Any], path: Path) -> None:
    """Refuse metrics of version 0.1.0, whose verdicts are in folders with other names.

    Raises:
        DataError: the metrics have the row name of version 0.1.0.
    """
    if FORMER in rows and ADAPTER not in rows:
        raise DataError(
            f"{path}: has the row {FORMER!r} of version 0.1.0, which is {ADAPTER!r} now; lori run "
            "makes it again"
        )
