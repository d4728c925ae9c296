"""Which points the experiments have, and that they share what they can."""

from pathlib import Path
from typing import Any

import pytest

from lori_cli import main
from lori_core import config
from lori_core.config.experiments import EXPERIMENTS
from lori_core.core.errors import ConfigError, InputError
from lori_core.methods.catalogue import BUILT_IN
from lori_core.pipeline import params_file
from studies import catalogue, points, stages
from studies.analysis.specs import SPECS
from studies.page.base_names import base_folder
from studies.points import Collect, Points, Score, Train
from support import dvc_workspace, refused, smoke_params

ROOT = Path(__file__).parent.parent.parent


def trains(found: Points) -> list[Train]:
    return [point for point in found.by_name.values() if isinstance(point, Train)]


def test_single_task_trains_every_method_on_every_task_and_seed() -> None:
    found = catalogue.build(smoke_params(seeds=[1, 2, 3]), ["single-task"])
    chosen = [point for point in trains(found) if point.tries]
    assert len(chosen) == len(BUILT_IN) * 2 * 3
    tried = [point for point in trains(found) if not point.tries]
    assert len(tried) == len(BUILT_IN) * 2 * 2  # two rates each, with the first seed alone
    assert {point.lori.seed for point in tried} == {1}


def test_experiments_share_their_points() -> None:
    params = smoke_params()
    one_by_one = {
        name for each in catalogue.EXPERIMENTS for name in catalogue.build(params, [each]).by_name
    }
    together = catalogue.build(params, ["all"])
    assert set(together.by_name) == one_by_one
    single = set(catalogue.build(params, ["single-task"]).by_name)
    new = [point for point in trains(catalogue.build(params, ["merge-four"])) if point.tries]
    assert {points.name_of(point) for point in new} <= single


def test_a_calibration_is_trained_once_for_all_masks_taken_from_it() -> None:
    found = catalogue.build(smoke_params(learning_rates={}), ["granularity", "structured"])
    dense = [point for point in trains(found) if point.method == "lori-d"]
    sparse = [point for point in trains(found) if point.method == "lori-s"]
    assert len(dense) == 2  # one a seed
    assert len(sparse) == 2 * (5 + 4 - 1)  # the ordinary one stands in both


def test_the_rate_of_an_ablation_is_that_of_the_ordinary_adapter() -> None:
    found = catalogue.build(smoke_params(), ["granularity"])
    tries = {point.tries for point in trains(found) if point.method == "lori-s" and point.tries}
    assert len(tries) == 1


def test_the_report_knows_every_experiment() -> None:
    assert list(SPECS) == list(catalogue.EXPERIMENTS) == list(EXPERIMENTS)


def test_only_lori_s_is_sparse_and_other_methods_train_as_calibration_does() -> None:
    found = trains(catalogue.build(smoke_params(learning_rates={}), ["single-task"]))
    assert {p.lori.sparsity for p in found if p.method == "lori-s"} == {0.9}
    assert {p.lori.sparsity for p in found if p.method != "lori-s"} == {0.0}
    assert {p.training.learning_rate for p in found if p.method == "lori-s"} == {1e-2}
    assert {p.training.learning_rate for p in found if p.method != "lori-s"} == {2e-3}


def test_a_merge_has_the_papers_weights_and_densities() -> None:
    found = catalogue.build(smoke_params(seeds=[1]), ["merge-four"])
    mixtures = {
        (point.what, mixture.method, mixture.weights, mixture.density)
        for point in found.by_name.values()
        if isinstance(point, Score)
        for mixture in point.models.values()
        if mixture.method
    }
    assert ("ties-lora-s1", "ties", (0.4, 0.4), 0.7) in mixtures
    assert ("magnitude_prune-lori-s-s1", "magnitude_prune", (0.3, 0.3), 0.3) in mixtures
    assert len(mixtures) == 3 * 5


def test_a_changed_setting_is_another_point() -> None:
    before = set(catalogue.build(smoke_params(), ["granularity"]).by_name) - {"granularity"}
    values = smoke_params().model_dump(mode="json")
    values["training"]["batch_size"] = 4
    changed = config.parse(values, "params.yaml")
    after = set(catalogue.build(changed, ["granularity"]).by_name) - {"granularity"}
    assert not before & after


def test_every_point_comes_after_those_it_builds_on() -> None:
    found = catalogue.build(smoke_params(), ["all"])
    seen: set[str] = set()
    for name, point in found.by_name.items():
        assert set(point.parents) <= seen
        seen.add(name)


def test_all_methods_are_compared_on_the_tasks_named() -> None:
    found = catalogue.build(smoke_params(seeds=[1], compared_tasks=["math"]), ["single-task"])
    assert {p.task for p in found.by_name.values() if isinstance(p, Train)} == {"math"}


def test_points_come_back_from_their_file(tmp_path: Path) -> None:
    found = catalogue.build(smoke_params(seeds=[1]), ["property-1", "sparsity-map", "continual"])
    found.save(tmp_path / "points.json")
    for name, point in found.by_name.items():
        assert points.load(name, tmp_path / "points.json") == point
        assert isinstance(point, Collect) or points.name_of(point) == name


def test_the_stages_are_those_of_the_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = catalogue.build(smoke_params(learning_rates={}, seeds=[1]), ["importance"])
    stages.write(found)
    written = params_file._plain(params_file._read(stages.DVC))["stages"]
    assert list(written) == [*found.by_name, "report"]
    name = next(n for n, p in found.by_name.items() if isinstance(p, Train) and p.mask_of)
    mask_of = found.by_name[name].parents[0]
    assert f"artifacts/experiments/{mask_of}" in written[name]["deps"]
    assert written[name]["params"] == [{"experiments/points.json": [name]}]
    assert written["importance"]["metrics"] == [
        {"metrics/experiments/importance.json": {"cache": False}}
    ]
    stages.write(found)
    stages.DVC.write_text("stages: {}\n")
    with pytest.raises(InputError, match="lori experiment did not write it"):
        stages.write(found)
    assert stages.DVC.read_text() == "stages: {}\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ["lora", "lorra"]}, r"method 'lorra' is unknown; did you mean 'lora'"),
        ({"options": {"vera": {"seed": 1}}}, r"experiments.options.vera.seed: unknown key"),
        ({"merges": ["concat", "ties2"], "densities": {"ties2": 0.5}}, r"'ties2' is unknown"),
        (
            {
                "merged_methods": ["ia3"],
                "weights_of_four": {"ia3": 1},
                "weights_of_three": {"ia3": 1},
            },
            r"ia3 does not train a low-rank update",
        ),
        ({"learning_rates": {"lora": [1e-3], "default": [1e-3, 1e-2]}}, r"same number of tries"),
        ({"learning_rates": {"lora": [1e-3, 1e-2]}}, r"learning_rates.default: needed"),
        ({"learning_rates": {"lorra": [1e-3]}}, r"method 'lorra' is unknown"),
        ({"merges": ["ties"], "densities": {}}, r"experiments.densities: ties needs one"),
        ({"compared_tasks": ["maths"]}, r"task 'maths' is unknown; did you mean 'math'"),
        ({"ablation_tasks": ["maths"]}, r"task 'maths' is unknown; did you mean 'math'"),
        ({"seed": 1}, r"experiments.seed: unknown key; did you mean 'seeds'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_trains(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        catalogue.build(smoke_params(**changes), ["all"])


def test_an_experiment_that_does_not_exist_is_refused_by_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    dvc_workspace(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "profiles" / "smoke.yaml").read_bytes())
    said = refused(capsys, "experiment", "granularities")
    assert "experiment 'granularities' is unknown; did you mean 'granularity'?" in said
    assert not (tmp_path / "experiments").exists()
    said = refused(capsys, "experiment", "granularity", "--set", "experiments.scops=[model]")
    assert "experiments.scops: unknown key; did you mean 'scopes'?" in said


def on_base(base: str, first: str | None) -> Points:
    values = smoke_params(seeds=[1], learning_rates={}, first_base=first).model_dump(mode="json")
    values["model"]["name_or_path"] = base
    return catalogue.build(config.parse(values, "params.yaml"), ["granularity"])


def collected(found: Points) -> tuple[str, Collect]:
    ((name, point),) = [(n, p) for n, p in found.by_name.items() if isinstance(p, Collect)]
    return name, point


def test_another_base_has_its_own_points_and_rows() -> None:
    first = on_base("random:llama", None)
    again = on_base("random:llama", "random:llama")
    other = on_base("random:mistral", "random:llama")
    assert again.by_name == first.by_name
    assert not set(first.by_name) & set(other.by_name)
    name, point = collected(first)
    assert (name, str(point.path)) == ("granularity", "metrics/experiments/granularity.json")
    assert "base" not in point.model_dump(mode="json")
    assert point.info["command"] == "lori experiment granularity"
    name, point = collected(other)
    folder = base_folder("random:mistral")
    assert name == f"granularity-on-{folder}"
    assert str(point.path) == f"metrics/experiments/bases/{folder}/granularity.json"
    assert point.info["model"] == "random:mistral"
    assert point.info["command"] == "lori experiment granularity --base random:mistral"


def test_the_option_base_remembers_the_first_base(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    text = (ROOT / "profiles" / "smoke.yaml").read_bytes()
    (tmp_path / "profiles" / "smoke.yaml").write_bytes(text)
    (tmp_path / "params.yaml").write_bytes(text)

    def written(*options: str) -> tuple[str, str | None, str]:
        assert main(["experiment", "importance", "--write", *options]) == 0
        capsys.readouterr()
        params = params_file.load()
        name, point = collected(catalogue.build(params, ["importance"]))
        assert points.load(name) == point
        return params.model.name_or_path, params.experiments.first_base, point.info["command"]

    command = "lori experiment importance --profile smoke"
    assert written() == ("random:llama", None, command)
    mistral = ("random:mistral", "random:llama", f"{command} --base random:mistral")
    assert written("--base", "random:mistral") == mistral
    assert written() == mistral
    gpt2 = ("random:gpt2", "random:llama", f"{command} --base random:gpt2")
    assert written("--base", "random:gpt2") == gpt2
    assert written("--base", "random:llama") == ("random:llama", "random:llama", command)
    assert written("--profile", "smoke") == ("random:llama", None, command)
