"""Loading the base model in a stage, with a check that `lori pull` recorded the same one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lori_core.config import Params
from lori_core.core.errors import ModelError
from lori_core.core.files.atomic import read_object
from lori_core.core.stage_dependencies import BASE_FILE

if TYPE_CHECKING:
    from lori_core.methods.loaded_model import LoadedModel


def open_base(params: Params, *, training: bool = True) -> LoadedModel:
    """Load the base model of a run, as `load_model` does.

    Prints to standard error if the computation uses another dtype than `model.dtype`.

    Raises:
        ModelError: its content is not what the last `lori pull` recorded, so DVC would keep
            results of the other base model.
    """
    from lori_core.methods.loaded_model import load_model
    from lori_core.models import base_model, precision

    session = load_model(params, training=training)
    recorded = Path(BASE_FILE)
    if recorded.is_file() and not session.base.content().items() <= read_object(recorded).items():
        raise ModelError(
            f"model.name_or_path: {params.model.name_or_path}: the model there is not the one that "
            f"{recorded} records; run lori pull, so that the stages that depend on it run again"
        )
    notice = precision.notice(params.model.dtype, base_model.device())
    if notice is not None:
        print(notice, file=sys.stderr, flush=True)
    return session
