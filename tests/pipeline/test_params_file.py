from pathlib import Path

import pytest

from lori_core.core.errors import ConfigError
from lori_core.pipeline import params_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    for path in (ROOT / "profiles").glob("*.yaml"):
        (tmp_path / "profiles" / path.name).write_text(path.read_text())
    (tmp_path / "params.yaml").write_text((ROOT / "profiles" / "quickstart.yaml").read_text())
    return tmp_path


def test_an_override_changes_one_line_and_says_so(workspace: Path) -> None:
    path = workspace / "params.yaml"
    before = path.read_text().splitlines()
    said = params_file.apply(path, None, ["lori.rank=16", "training.learning_rate=5e-4"])
    assert said == [
        "params.yaml: lori.rank: 32 -> 16",
        "params.yaml: training.learning_rate: 0.001 -> 0.0005",
    ]
    after = path.read_text().splitlines()
    assert len([1 for a, b in zip(before, after, strict=True) if a != b]) == 2
    assert params_file.load(path).training.learning_rate == 5e-4


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        ("smok", [], r"--profile: profile 'smok' is unknown; did you mean 'smoke'"),
        (None, ["lori.rnk=3"], r"lori.rnk: unknown key; did you mean 'rank'"),
        (None, ["lri.rank=3"], r"--set lri: key 'lri' is unknown; did you mean 'lori'"),
        (None, ["lori.rank"], r"expected key=value"),
        (None, ["tasks.nlu.source=bundled-nly"], r"source 'bundled-nly' is unknown; did you mean"),
        (None, ["lori.rank.x=3"], r"lori.rank is a value"),
        ("smoke", ["lori.sparsity=2"], r"lori.sparsity: input should be less than 1"),
    ],
)
def test_a_refused_change_leaves_the_file_as_it_was(
    workspace: Path, profile: str | None, overrides: list[str], message: str
) -> None:
    path = workspace / "params.yaml"
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        params_file.apply(path, profile, overrides)
    assert path.read_bytes() == before


def test_a_profile_replaces_the_file(workspace: Path) -> None:
    path = workspace / "params.yaml"
    assert params_file.apply(path, "smoke", []) == ["params.yaml: now the profile smoke"]
    assert params_file.load(path).model.name_or_path == "random:llama"


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("model:\n  name: [\n")
    with pytest.raises(ConfigError, match=r"params.yaml:3: not valid YAML"):
        params_file.load(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        params_file.load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("name", params_file.profiles(ROOT / "profiles"))
def test_every_profile_is_valid_and_has_the_four_tasks(name: str) -> None:
    params = params_file.load(ROOT / "profiles" / f"{name}.yaml")
    assert list(params.tasks) == ["nlu", "math", "code", "safety"]
    assert params.merge["concat"].method == "concat"


def test_params_yaml_is_the_quickstart() -> None:
    quickstart = (ROOT / "profiles" / "quickstart.yaml").read_text()
    assert (ROOT / "params.yaml").read_text() == quickstart


@pytest.mark.parametrize(
    ("profile", "task", "dense", "sparse"),
    [
        ("llama3-8b-r32", "nlu", (5e-5, 1, 64), (5e-4, 1, 64)),
        ("llama3-8b-r32", "math", (5e-5, 3, 64), (5e-4, 3, 64)),
        ("llama3-8b-r64", "math", (5e-5, 3, 128), (1e-3, 3, 128)),
        ("llama3-8b-r64", "code", (1e-5, 2, 128), (1e-4, 2, 128)),
        ("mistral-7b-r32", "nlu", (1e-5, 1, 64), (1e-4, 1, 64)),
        ("mistral-7b-r32", "safety", (5e-5, 1, 64), (5e-4, 1, 64)),
        ("mistral-7b-r64", "math", (1e-4, 3, 32), (5e-4, 3, 64)),
        ("mistral-7b-r64", "safety", (1e-5, 1, 128), (1e-4, 1, 128)),
    ],
)
def test_the_papers_profiles_hold_appendix_d(
    profile: str, task: str, dense: tuple[float, ...], sparse: tuple[float, ...]
) -> None:
    params = params_file.load(ROOT / "profiles" / f"{profile}.yaml")
    for phase, expected in (("calibration", dense), ("training", sparse)):
        section = params.phase(task, phase)  # type: ignore[arg-type]
        alpha = section.lora_alpha or params.lori.lora_alpha
        assert (section.learning_rate, section.epochs, alpha) == expected
        assert (section.batch_size, section.weight_decay, section.dropout) == (32, 0, 0)


def test_a_section_at_its_defaults_can_be_set(workspace: Path) -> None:
    path = workspace / "params.yaml"
    assert "experiments:" not in path.read_text()
    said = params_file.apply(path, None, ["experiments.seeds=[7]"])
    assert said == ["params.yaml: experiments.seeds: None -> [7]"]
    assert params_file.load(path).experiments.seeds == (7,)


def test_a_profile_is_recognised_by_its_values() -> None:
    folder = ROOT / "profiles"
    smoke = params_file.load(folder / "smoke.yaml")
    assert params_file.profile_of(smoke, folder) == "smoke"
    other = smoke.model_copy(update={"lori": smoke.lori.model_copy(update={"seed": 7})})
    assert params_file.profile_of(other, folder) is None


LEAST = """\
model:
  name_or_path: random:llama   # tiny
lori: {rank: 4}
training: {batch_size: 4}
tasks:
  support:
    source: bundled-math
    calibration: {}
    training: {learning_rate: 5.0e-4}
"""


def test_missing_keys_that_dvc_reads_are_added_with_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(LEAST)
    before = params_file.load(path)
    (said,) = params_file.apply(path, None, [])
    assert said.startswith("params.yaml: written in at their defaults: continual.safety_task, ")
    assert params_file.load(path) == before
    written = params_file._plain(params_file._read(path))
    assert written["tasks"]["support"]["method"] == "lori-s"
    assert written["tasks"]["support"]["projection_key"] is None
    assert written["continual"] == {"safety_task": None, "tasks": []}
    assert (written["merge"], written["prompt"], written["evaluation"]) == ({}, {}, {})
    assert written["lori"]["rank"] == 4
    assert written["lori"]["structure"] == "none"
    assert "# tiny" in path.read_text()
    assert params_file.apply(path, None, []) == []


def test_added_keys_stand_before_the_blank_lines_after_their_section(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    lori = "lori:\n  rank: 4   # few\n  sparsity: 0.5\n\n# how it is trained\n"
    path.write_text(LEAST.replace("lori: {rank: 4}\n", lori))
    before = params_file.load(path)
    params_file.apply(path, None, [])
    section = path.read_text().partition("lori:\n")[2].partition("training:")[0].splitlines()
    assert section[:2] == ["  rank: 4   # few", "  sparsity: 0.5"]
    assert section[-2:] == ["", "# how it is trained"]
    assert "" not in section[:-2]
    assert params_file.load(path) == before


def test_a_plan_of_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(LEAST)
    _, text = params_file.changed(path, None, [])
    assert "method: lori-s" in text
    assert path.read_text() == LEAST


@pytest.mark.parametrize("name", params_file.profiles(ROOT / "profiles"))
def test_a_profile_leaves_nothing_out_that_dvc_reads(name: str) -> None:
    path = ROOT / "profiles" / f"{name}.yaml"
    values = params_file._read(path)
    assert params_file._complete(values, params_file.load(path)) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gsm.v2", r"tasks.gsm.v2: 'gsm.v2' cannot be a name: .*; write gsm-v2$"),
        ("a b", r"tasks.a b: 'a b' cannot be a name: .*; write a-b$"),
        ("merged", r"tasks.merged: 'merged' is the name of a folder of artifacts/"),
        ("2024", r"params.yaml: tasks.2024: a key must be text; put it in quotes$"),
    ],
)
def test_a_name_that_dvc_could_not_follow_is_refused(
    tmp_path: Path, name: str, message: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(LEAST.replace("support", name))
    with pytest.raises(ConfigError, match=message):
        params_file.load(path)


def test_a_merge_has_no_dot_in_its_name_either(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(LEAST + "merge:\n  ties.7: {method: concat}\n")
    with pytest.raises(ConfigError, match=r"merge.ties.7: 'ties.7' cannot be a name"):
        params_file.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: \xe9\n", r"params.yaml:1: not UTF-8 text \(byte 7\); save it as UTF-8$"),
        (b"", r"params.yaml: expected a mapping of sections, found nothing$"),
        (b"- a\n", r"params.yaml: expected a mapping of sections, found a list$"),
        (b"a: \x00\n", r"params.yaml:1: holds the character '.x00', which is no text; remove it$"),
        (b"a: " + b"[" * 3000, r"params.yaml:1: lists and sections are nested more than 32 deep$"),
        (b"a: *b\n", r"params.yaml:1: not valid YAML \("),
    ],
)
def test_invalid_content_is_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    for act in (params_file.load, lambda p: params_file.changed(p, None, ["lori.rank=4"])):
        with pytest.raises(ConfigError, match=message):
            act(path)


@pytest.mark.parametrize("value", ["[", "*a", "&a [*a]", "\x07"])
def test_a_value_that_is_no_yaml_is_one_line(workspace: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"--set lori.rank|lori.rank|holds itself"):
        params_file.changed(workspace / "params.yaml", None, [f"lori.rank={value}"])


def test_a_nested_section_at_its_defaults_can_be_set(workspace: Path) -> None:
    path = workspace / "params.yaml"
    params_file.apply(path, None, ["gate.margins.math=0.2", "gate.rules.refusal.at_least=0.4"])
    params = params_file.load(path)
    assert params.gate.margins == {"math": 0.2}
    assert params.gate.rules["refusal"].at_least == 0.4
    with pytest.raises(ConfigError, match=r"task 'maths' is unknown; did you mean 'math'"):
        params_file.apply(path, None, ["tasks.maths.training.epochs=2"])
    with pytest.raises(ConfigError, match=r"gate.*margns: unknown key; did you mean 'margins'"):
        params_file.apply(path, None, ["gate.margns.math=0.2"])


def test_a_section_with_an_alias_is_changed_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    other = "  other:\n    source: bundled-nlu\n    calibration: {}\n    training: *shared\n"
    text = LEAST.replace("    training: {", "    training: &shared {") + other
    path.write_text(text)
    params_file.apply(path, None, ["tasks.support.training.epochs=3"])
    params = params_file.load(path)
    assert params.tasks["support"].training == {"learning_rate": 5.0e-4, "epochs": 3}
    assert params.tasks["other"].training == {"learning_rate": 5.0e-4}
