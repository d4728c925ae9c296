"""What can be chosen by name stands in one registry each; all lists of names follow it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from lori_core import config
from lori_core.registries.mask import IMPORTANCES, MASK_SCOPES, STRUCTURES
from lori_core.registries.merge_method import MERGE_METHODS

#: The methods that merge adapters of any origin.
GENERAL = {name: method for name, method in MERGE_METHODS.items() if not method.starts}


@pytest.mark.parametrize("method", GENERAL)
def test_an_experiments_merge_needs_a_density_where_its_method_does(method: str) -> None:
    section = config.ExperimentsSection.model_validate
    assert section({"merges": [method], "densities": {method: 0.5}}).merges == (method,)
    if MERGE_METHODS[method].needs_density:
        with pytest.raises(ValidationError, match=f"experiments.densities: {method} needs one"):
            section({"merges": [method], "densities": {}})
    else:
        assert section({"merges": [method], "densities": {}}).merges == (method,)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_a_merge_takes_a_density_and_a_rank_where_its_method_uses_them(method: str) -> None:
    known = MERGE_METHODS[method]
    given: dict[str, Any] = {"method": method}
    if known.starts:
        with pytest.raises(ValidationError, match="set stage: continual"):
            config.MergeSection.model_validate(given)
        given["stage"] = "continual"
    if known.needs_density:
        with pytest.raises(ValidationError, match=r"needs a density, as in density: 0\.7"):
            config.MergeSection.model_validate(given)
        given["density"] = 0.5
    config.MergeSection.model_validate(given)
    for field, value in (("density", 0.5), ("rank", 4)):
        if field in known.uses:
            config.MergeSection.model_validate(given | {field: value})
        else:
            with pytest.raises(ValidationError, match=f"{method} has no {field}"):
                config.MergeSection.model_validate(given | {field: value})


@pytest.mark.parametrize(
    ("section", "field", "registry"),
    [
        (config.LoriSection, "importance", IMPORTANCES),
        (config.LoriSection, "mask_scope", MASK_SCOPES),
        (config.LoriSection, "structure", STRUCTURES),
        (config.ExperimentsSection, "importances", IMPORTANCES),
        (config.ExperimentsSection, "scopes", MASK_SCOPES),
        (config.ExperimentsSection, "structures", STRUCTURES),
        (config.ExperimentsSection, "merges", MERGE_METHODS),
    ],
)
def test_a_field_takes_the_names_of_its_registry(section: Any, field: str, registry: Any) -> None:
    many = section is config.ExperimentsSection
    more = {"densities": dict.fromkeys(MERGE_METHODS, 0.5)} if field == "merges" else {}
    names = GENERAL if field == "merges" else registry
    for name in names:
        section.model_validate({field: [name] if many else name} | more)
    with pytest.raises(ValidationError, match=f"{registry.kind} 'no-such' is unknown .allowed: "):
        section.model_validate({field: ["no-such"] if many else "no-such"})


def test_reading_the_parameters_and_the_help_import_no_torch() -> None:
    said = "import sys; from lori_core.pipeline import params_file; params_file.load(); "
    said += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", said], check=True, timeout=60)
