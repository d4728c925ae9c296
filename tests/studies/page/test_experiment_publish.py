"""The document of the experiments, and the one that is published here."""

import json
import re
from pathlib import Path

import pytest

from lori_core.core.errors import InputError
from studies.analysis import specs
from studies.page import publish

DOCS = Path(__file__).parents[3] / "docs"
#: The experiments that have no results in docs/evidence.
NOT_RUN = {"projections"}


def test_the_document_stands_beside_its_record(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / publish.METRICS).symlink_to(drawn)
    (tmp_path / "experiments").mkdir()
    (tmp_path / publish.LOCK).write_text("schema: '2.0'\n")
    (tmp_path / "profiles").symlink_to(DOCS.parent / "profiles")
    docs = tmp_path / "docs"
    docs.mkdir()
    publish.publish(tmp_path, docs)
    text = (docs / "evidence.md").read_text()
    shown = re.findall(r"\]\((evidence/[^)]*\.png)\)", text)
    assert len(shown) >= len(specs.SPECS)
    assert all((docs / picture).stat().st_size > 1000 for picture in shown)
    names = {path.stem for path in (docs / "evidence" / "metrics").iterdir()}
    assert names == set(specs.SPECS)
    assert (docs / "evidence" / "dvc.lock").read_text() == "schema: '2.0'\n"
    own = docs / "evidence" / "own.png"
    own.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"it holds own\.png; move it away"):
        publish.publish(tmp_path, docs)
    own.unlink()
    publish.publish(tmp_path, docs)
    (docs / "evidence.md").write_text("# Mine\n")
    with pytest.raises(InputError, match=r"evidence\.md: is a document that"):
        publish.publish(tmp_path, docs)
    assert (docs / "evidence.md").read_text() == "# Mine\n"


def test_what_is_published_here_is_what_its_rows_say(tmp_path: Path) -> None:
    metrics = DOCS / "evidence" / "metrics"
    built = publish.document(metrics, tmp_path / "pictures", DOCS.parent / "profiles")
    assert built == (DOCS / "evidence.md").read_text()
    assert set(specs.SPECS) - {path.stem for path in metrics.iterdir()} == NOT_RUN


def test_an_experiment_without_results_is_named_with_its_command() -> None:
    text = (DOCS / "evidence.md").read_text()
    _, found, section = text.partition("## Not run yet\n")
    assert found
    for name in NOT_RUN:
        assert f"`lori experiment {name} --profile evidence`" in section


@pytest.mark.parametrize("name", [name for name in specs.SPECS if name not in NOT_RUN])
def test_each_experiment_here_has_three_seeds(name: str) -> None:
    rows = json.loads((DOCS / "evidence" / "metrics" / f"{name}.json").read_text())["rows"]
    assert {row["seed"] for row in rows if row["seed"] is not None} == {1, 2, 3}


def test_the_sets_have_their_licences_and_the_results_their_sizes() -> None:
    text = (DOCS / "evidence.md").read_text()
    section = text.partition("## Data and licences\n")[2].partition("\n## ")[0]
    assert "| `gsm8k-files` | GSM8K: grade-school word problems | MIT |" in section
    assert section.count("CC-BY-NC-4.0") == 4
    assert "those sizes are now in `evidence-cpu`." in section
