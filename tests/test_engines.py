"""The registry of engines, from which the settings know what `execution.engine` may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from lori_core import engines, params_file
from lori_core.config.operations import ExecutionSection
from lori_core.errors import ConfigError

SMOKE = Path(__file__).parent.parent / "profiles/smoke.yaml"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of the test's own."""
    monkeypatch.setattr(engines, "_ENGINES", dict(engines._ENGINES))


def test_our_own_engines_are_found_by_their_names() -> None:
    found = {name: engines.find(name) for name in engines.BUILT_IN}
    assert {name: made.__module__ for name, made in found.items()} == engines.BUILT_IN
    assert ExecutionSection().engine in found


def test_the_settings_take_what_is_registered_and_nothing_else(registered: None) -> None:
    wanted = ["execution.engine=in-turn"]
    with pytest.raises(ConfigError) as caught:
        params_file.changed(SMOKE, None, wanted)
    assert str(caught.value) == (
        f"{SMOKE}: execution.engine: engine 'in-turn' is unknown (allowed: local, ray)"
    )
    engines.engine("in-turn")(type("InTurn", (), {}))
    params, _ = params_file.changed(SMOKE, None, wanted)
    assert params.execution.engine == "in-turn"
    with pytest.raises(ConfigError, match=r"did you mean 'local'\? \(allowed: in-turn, local, ray"):
        params_file.changed(SMOKE, None, ["execution.engine=lokal"])


def test_what_is_not_registered_is_not_found() -> None:
    with pytest.raises(ConfigError, match=r"execution\.engine: engine 'slurm' is unknown"):
        engines.find("slurm")


def test_a_name_has_one_engine(registered: None) -> None:
    class Mine:
        """An engine."""

    with pytest.raises(ConfigError, match=r"'ray' is the engine of flows\.execution\.ray_engine"):
        engines.engine("ray")(Mine)
    assert engines.engine("mine")(Mine) is Mine
    assert engines.engine("mine")(Mine) is Mine  # a module that is imported again
    other = type("Other", (), {"__module__": "elsewhere"})
    with pytest.raises(ConfigError, match="give that of elsewhere another name"):
        engines.engine("mine")(other)
    assert engines.find("mine") is Mine
