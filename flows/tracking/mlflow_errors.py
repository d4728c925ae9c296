"""Errors of MLflow's clients as errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flows.tracking.mlflow_store import sqlite_file
from lori_core.core import faults
from lori_core.core.errors import LoriError
from lori_core.core.redaction import redact


@contextmanager
def clear_errors(uri: str) -> Iterator[None]:
    """Turn any exception of MLflow into an error of one line that names the registry."""
    try:
        yield
    except (LoriError, KeyboardInterrupt):
        raise
    except Exception as error:  # MLflow's, its client's, its database's
        faults.note(error, redact(str(sqlite_file(uri) or uri)))
        known = faults.explained(error)
        if known is not None:
            raise known from error
        first = redact((str(error).strip() or type(error).__name__).splitlines()[0])[:300]
        raise LoriError(f"MLflow at {uri} refuses: {first}") from error
