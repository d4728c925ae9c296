"""The records of finished points: what makes them invalid, and what they are merged by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lori_core.core.errors import InputError
from lori_core.core.files.atomic import write_json
from studies import catalogue, stages
from studies.points import FACTS, Points, folder_of
from studies.timed import records
from studies.timed.records import FINISHED, Records
from support import smoke_params


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Points:
    """Return points, in a workspace with the data that they read."""
    monkeypatch.chdir(tmp_path)
    built = catalogue.build(smoke_params(seeds=[1], learning_rates={}), ["granularity"])
    for point in built.by_name.values():
        for path in stages.data_of(point):
            if path != "data":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text("{}\n")
    return built


def read(points: Points) -> Records:
    records._sha256.cache_clear()
    return Records(points.by_name, {})


def finish(points: Points, name: str) -> None:
    write_json(folder_of(name) / FACTS, {"rows": {}, "of": name})
    read(points).add(name, "a card", {"torch": "2"}, 1.5)


def names_of(points: Points) -> tuple[str, str, str]:
    """Return the LoRI-D point, a LoRI-S point, and the point that scores it."""
    score = next(n for n, p in points.by_name.items() if p.kind == "score")
    (sparse,) = points.by_name[score].parents
    (dense,) = points.by_name[sparse].parents
    return dense, sparse, score


def test_a_record_is_read_back(points: Points) -> None:
    dense, _, _ = names_of(points)
    assert read(points).by_name == {}
    finish(points, dense)
    found = read(points)
    assert list(found.by_name) == [dense]
    record = found.by_name[dense]
    assert record.facts == {"rows": {}, "of": dense}
    assert (record.machine, record.versions, record.seconds) == ("a card", {"torch": "2"}, 1.5)
    assert found.has_files(dense)


def test_changed_data_makes_the_point_and_those_after_it_invalid(points: Points) -> None:
    for name in names_of(points):
        finish(points, name)
    assert set(read(points).by_name) == set(names_of(points))
    test = Path("data/math/test.jsonl")
    before = test.read_text()
    test.write_text('{"id": 1}\n')
    assert read(points).by_name == {}
    test.write_text(before)
    assert set(read(points).by_name) == set(names_of(points))
    Path("data/base.json").write_text('{"content": "another base"}\n')
    assert read(points).by_name == {}


def test_changed_code_makes_its_points_invalid(
    points: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names_of(points):
        finish(points, name)
    real = stages.code_of
    monkeypatch.setattr(
        stages, "code_of", lambda kind: real(kind)[1:] if kind == "score" else real(kind)
    )
    dense, sparse, _ = names_of(points)
    assert set(read(points).by_name) == {dense, sparse}


def test_files_of_another_run_are_not_those_of_the_record(points: Points) -> None:
    dense, _, _ = names_of(points)
    finish(points, dense)
    write_json(folder_of(dense) / FACTS, {"rows": {}, "of": "another run"})
    found = read(points)
    assert list(found.by_name) == [dense]
    assert not found.has_files(dense)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"key": '])
def test_a_record_that_is_none_is_refused_by_name(points: Points, damage: str) -> None:
    dense, _, _ = names_of(points)
    FINISHED.mkdir(parents=True)
    (FINISHED / f"{dense}.json").write_text(damage)
    with pytest.raises(InputError, match=rf"{dense}\.json:"):
        read(points)


def test_a_record_of_another_form_is_refused(points: Points) -> None:
    dense, _, _ = names_of(points)
    finish(points, dense)
    path = FINISHED / f"{dense}.json"
    content = json.loads(path.read_text())
    del content["facts"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"is no record of this point; delete it"):
        read(points)
