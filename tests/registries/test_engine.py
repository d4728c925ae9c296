"""The registry of engines, from which the settings know what `execution.engine` may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from lori_core.config.operations import ExecutionSection
from lori_core.core.errors import ConfigError
from lori_core.pipeline import params_file
from lori_core.registries.engine import ENGINES

SMOKE = Path(__file__).parents[2] / "profiles/smoke.yaml"


def test_our_own_engines_are_found_by_their_names() -> None:
    found = {name: entry.find().__name__ for name, entry in ENGINES.items()}
    assert found == {"local": "LocalEngine", "ray": "RayEngine"}
    assert ExecutionSection().engine == "local"


def test_the_settings_take_what_is_registered_and_nothing_else() -> None:
    with pytest.raises(ConfigError) as caught:
        params_file.changed(SMOKE, None, ["execution.engine=slurm"])
    assert str(caught.value) == (
        f"{SMOKE}: execution.engine: engine 'slurm' is unknown (allowed: local, ray)"
    )
