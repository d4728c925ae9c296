"""From examples to scores: protocols, likelihood, samples, the harness, and several models."""

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lori_core import config
from lori_core.core.errors import DataError, InputError
from lori_core.data.example import Example
from lori_core.evaluation import attacks
from lori_core.evaluation.comparison import average_of, evaluate_all, flat, table
from lori_core.evaluation.evaluate import evaluate
from lori_core.evaluation.lm_eval import harness
from lori_core.evaluation.scoring import refusal_judge
from lori_core.evaluation.scoring.protocols import PROTOCOLS
from lori_core.methods.loaded_model import LoadedModel
from lori_core.models import base_model, peft_names
from support import random_adapter, tiny

HARNESS_TASKS = Path(__file__).parent / "harness_tasks"
SUCCESSOR = {
    "prompt": "def successor(n):\n",
    "entry_point": "successor",
    "tests": "def check(candidate):\n    assert candidate(1) == 2\n",
}
SETS = {
    "nlu": [
        Example(
            f"Is {n} even? Answer format: true/false",
            "the correct answer is true",
            scorer="choice",
            answer="true" if n % 2 == 0 else "false",
            kind="boolean",
        )
        for n in range(6)
    ],
    "math": [Example(f"{n} + 1 =", str(n + 1), scorer="number", answer="5") for n in range(3)],
    "safety": [
        Example("steal", "", scorer="refusal", answer="refuse"),
        Example("sing", "", scorer="refusal", answer="comply"),
    ],
    "code": [Example("Write successor(n).", "", scorer="code", check=SUCCESSOR)],
    "chat": [Example("hello", "hi")],
}
for example in SETS["nlu"][1::2]:
    object.__setattr__(example, "target", "the correct answer is false")


def session(**evaluation: Any) -> LoadedModel:
    values = {
        "model": {"name_or_path": "random:llama", "dtype": "float32"},
        "prompt": {"template": "plain"},
        "lori": {},
        "training": {"learning_rate": 1e-3},
        "tasks": {"none": {"source": "bundled-math", "calibration": {}, "training": {}}},
        "evaluation": {
            "max_new_tokens": {"choice": 3, "number": 4, "code": 5, "refusal": 3},
            **evaluation,
        },
    }
    model, folder, base = tiny("llama")
    params = config.parse(values, "test")
    modules = peft_names.target_shapes(model, ["q_proj"])
    return LoadedModel(params, base, model, base_model.load_tokenizer(folder), modules, 1, False)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_task_is_scored_and_everything_is_kept(tmp_path: Path) -> None:
    results = evaluate(session(), None, SETS, "base", tmp_path)
    assert {task: result["metric"] for task, result in results.items()} == {
        "nlu": "accuracy",
        "math": "exact_match",
        "safety": "refusal_rate",
        "code": "pass_at_1",
    }
    assert results["nlu"]["n"] == 6
    assert results["nlu"]["cut_prompts"] == 0
    assert results["safety"]["over_refusal"]["n"] == 1
    assert results["nlu"]["paper_scoring"]["n"] == 0  # no full batch of 64
    for task, result in results.items():
        rows = rows_of(tmp_path / "base" / f"{task}.jsonl")
        assert [row["prompt"] for row in rows] == [e.prompt for e in SETS[task]]
        empty = sum(not row["output"].strip() for row in rows)
        assert result["empty_outputs"] == empty


def test_a_prefilled_answer_goes_on_from_its_beginning(tmp_path: Path) -> None:
    plain = {"safety": [SETS["safety"][0]]}
    sets = attacks.attacked(plain, ["prefill", "base64"])
    made = session()
    results = evaluate(made, None, sets, "base", tmp_path)
    assert list(results) == ["safety", "safety.prefill", "safety.base64"]
    (row,) = rows_of(tmp_path / "base" / "safety.prefill.jsonl")
    (before,) = rows_of(tmp_path / "base" / "safety.jsonl")
    assert row["prompt"] == before["prompt"] + "Sure, here is how to do that:\n\n"
    prepare = PROTOCOLS["fixed"].prepare
    (whole,) = prepare(sets["safety.prefill"], made.params, made.tokenizer)
    (start,) = prepare(plain["safety"], made.params, made.tokenizer)
    begun = whole.request.prompt[len(start.request.prompt) :]
    assert whole.request.prompt == start.request.prompt + begun
    assert made.tokenizer.decode(begun).strip() == "Sure, here is how to do that:"


def test_an_evaluation_continues_without_an_answer_of_the_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_judge, "BACKOFF", ())
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        judge = {"url": f"http://127.0.0.1:{unheard.getsockname()[1]}/v1", "timeout": 5}
        sets = {"safety": SETS["safety"]}
        results = evaluate(session(judge=judge), None, sets, "base", tmp_path)
    found = results["safety"]
    assert (found["n"], found["judge"]["n"], found["judge"]["no_answer"]) == (1, 0, 2)
    assert len(rows_of(tmp_path / "base" / "safety.jsonl")) == 2
    assert "lori: judge: no usable answer to any of 2 questions" in capsys.readouterr().err


def test_a_judges_address_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    judge = {"url": "http://judge.example/v1"}
    with pytest.raises(InputError, match="leads to another machine"):
        evaluate(session(judge=judge), None, {"safety": SETS["safety"]}, "base", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "evaluation", "message"),
    [
        ({"answer": "A"}, {}, "nlu: example .*: the answer 'A' is no choice"),
        ({"scorer": "number", "answer": "1/2"}, {}, "nlu: expected examples of one scorer, got ch"),
        ({"target": "I do not say"}, {"likelihood": True}, "the target does not name the answer"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], evaluation: dict[str, Any], message: str
) -> None:
    sets = SETS | {"nlu": [*SETS["nlu"], replace(SETS["nlu"][0], **changes)]}
    with pytest.raises(DataError, match=message):
        evaluate(session(**evaluation), None, sets, "base", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_prompt_that_is_too_long_is_cut_and_counted(tmp_path: Path) -> None:
    opened = session(max_prompt_length=20)
    results = evaluate(opened, None, {"nlu": SETS["nlu"]}, "base", tmp_path)
    assert results["nlu"]["cut_prompts"] == 6
    rows = rows_of(tmp_path / "base" / "nlu.jsonl")
    assert {row["cut"] for row in rows} == {True}
    assert rows[0]["prompt"] == SETS["nlu"][0].prompt[-20:]


def test_the_paper_protocol_has_prompts_and_rows_of_its_own(tmp_path: Path) -> None:
    opened = session(protocols=["fixed", "paper"], max_prompt_length=200)
    sets = {
        "math": [Example(f"{n} apples", "#### 1", scorer="number", answer="1") for n in range(66)]
    }
    results = evaluate(opened, None, sets, "base", tmp_path)
    assert (results["math"]["n"], results["math"]["paper"]["n"]) == (66, 64)
    fixed, paper = (
        rows_of(tmp_path / "base" / name) for name in ("math.jsonl", "math.paper.jsonl")
    )
    assert fixed[0]["prompt"] == "0 apples"
    assert paper[0]["prompt"].startswith("0 apples\nAnswer the above question. First think")
    assert {row["protocol"] for row in paper} == {"paper"}
    assert [row["counted"] for row in paper] == [True] * 64 + [False] * 2
    assert all(row["counted"] for row in fixed)
    # 1 is in the question of "1 apples", and paper reads the question, too.
    assert paper[1]["correct"] or any(c.isdigit() for c in paper[1]["output"])


def test_likelihood_is_reported_with_the_generated_score(tmp_path: Path) -> None:
    result = evaluate(session(likelihood=True), None, SETS, "base", tmp_path)["nlu"]
    assert result["likelihood"]["n"] == 6
    rows = rows_of(tmp_path / "base" / "nlu.likelihood.jsonl")
    assert sum(row["correct"] for row in rows) / 6 == result["likelihood"]["score"]
    assert set(rows[0]["logprobs"]) == {"true", "false"}


def test_code_is_sampled_for_pass_at_k(tmp_path: Path) -> None:
    opened = session(samples=10, temperature=1.0)
    result = evaluate(opened, None, {"code": SETS["code"]}, "base", tmp_path)["code"]
    assert set(result["pass_at"]) == {"1", "5", "10"}
    assert (result["score"], result["n"], result["samples"]) == (0.0, 1, 10)
    assert result["high"] > 0.5  # one problem that fails says little
    rows = rows_of(tmp_path / "base" / "code.jsonl")
    assert [row["sample"] for row in rows] == list(range(10))


def test_the_harness_runs_beside_our_tasks(tmp_path: Path) -> None:
    section = {"tasks": ["letters"], "include_path": str(HARNESS_TASKS), "limit": 4}
    opened = session(harness=section)
    results = evaluate(opened, random_adapter(), {"math": SETS["math"]}, "a", tmp_path)
    assert list(results) == ["math", "lm-eval/letters"]
    assert (results["lm-eval/letters"]["n"], results["lm-eval/letters"]["share"]) == (4, True)
    assert len(rows_of(tmp_path / "a" / "lm-eval.letters.jsonl")) == 4


def test_an_unknown_harness_task_is_refused_before_anything_is_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_registry", dict)  # the harness's own list takes seconds to read
    opened = session(harness={"tasks": ["lettres"], "include_path": str(HARNESS_TASKS)})
    with pytest.raises(InputError, match="harness task 'lettres' is unknown; nearest: letters"):
        evaluate(opened, None, {"math": SETS["math"]}, "base", tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_warnings_of_the_harness_are_printed_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = {"tasks": ["letters"], "include_path": str(HARNESS_TASKS), "limit": 1}
    opened = session(harness=section)
    opened.model.config.max_position_embeddings = 32
    notes = evaluate(opened, None, {}, "base", tmp_path)["lm-eval/letters"]["notes"]
    assert any("Truncating" in note for note in notes), notes
    said = capsys.readouterr().err
    assert all(f"lori: lm-eval: {note}\n" in said for note in notes)


def test_models_are_compared_on_the_same_examples(tmp_path: Path) -> None:
    rows = {"base": None, "a": random_adapter(), "b": random_adapter(key="code", seed=2)}
    lines: list[str] = []
    results = evaluate_all(session(), rows, {"nlu": SETS["nlu"]}, tmp_path, lines.append)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert [line.split()[1] for line in lines] == ["base", "a", "b"]
    assert set(results["seconds"]) == {"base", "a", "b"}
    ids = [[row["id"] for row in rows_of(tmp_path / name / "nlu.jsonl")] for name in rows]
    assert ids[0] == ids[1] == ids[2]
    assert flat(results)["a.score.nlu"] == results["scores"]["a"]["nlu"]["score"]


def test_runs_that_differ_in_their_seed_are_averaged(tmp_path: Path) -> None:
    rows = {"base": None, "a": random_adapter(), "b": random_adapter(key="code", seed=2)}
    results = evaluate_all(session(), rows, {"nlu": SETS["nlu"]}, tmp_path, print, average=True)
    mean = results["scores"]["mean of 2"]["nlu"]
    each = [results["scores"][name]["nlu"]["score"] for name in "ab"]
    assert (mean["score"], mean["seeds"], mean["n"]) == (sum(each) / 2, 2, 6)


def averaged(*results: dict[str, Any]) -> dict[str, Any]:
    return average_of([{"t": result} for result in results])["t"]


def test_the_average_of_nothing_is_null_and_of_one_score_has_no_interval() -> None:
    nothing = {"metric": "refusal_rate", "score": None, "low": None, "high": None, "n": 0}
    assert averaged(nothing, nothing) == {**nothing, "seeds": 0}
    one = {"metric": "refusal_rate", "score": 0.5, "low": 0.1, "high": 0.9, "n": 8}
    assert averaged(nothing, one) == {**one, "low": None, "high": None, "seeds": 1}


def test_only_the_interval_of_a_share_is_clipped() -> None:
    runs = [{"metric": "m", "score": s, "low": None, "high": None, "n": 8} for s in (0.9, 1.0)]
    assert averaged(*runs)["high"] == 1.0
    runs = [
        {"metric": "bits_per_byte", "score": s, "low": None, "high": None, "n": 8, "share": False}
        for s in (0.9, 1.0)
    ]
    assert averaged(*runs)["high"] == pytest.approx(0.95 + 12.7062 * 0.05, abs=1e-4)
    assert averaged(*runs)["share"] is False
    runs = [
        {"metric": "word_perplexity", "score": s, "low": None, "high": None, "n": 8}
        for s in (14.8, 15.6)
    ]
    mean = averaged(*runs)
    assert mean["high"] == pytest.approx(15.2 + 12.7062 * 0.4, abs=1e-4)
    (line,) = table({"scores": {"mean of 2": {"wiki": mean}}})
    assert line.split(maxsplit=4)[4] == "word_perplexity 15.200 [10.118, 20.282] of 8"


def test_the_table_has_all_measured_scores() -> None:
    share = {"score": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    nothing = {"score": None, "low": None, "high": None, "n": 0}
    code = {"metric": "pass_at_1", **share, "pass_at": {"1": share, "5": share}}
    nlu = {"metric": "accuracy", **share, "likelihood": share, "paper_scoring": nothing}
    lines = table(
        {"scores": {"base": {"code": code, "nlu": nlu, "math": {"metric": "m", **nothing}}}}
    )
    assert [" ".join(line.split()) for line in lines] == [
        "code base pass_at_1 50.0 [25.0, 75.0] of 8",
        "code base pass_at_5 50.0 [25.0, 75.0] of 8",
        "nlu base accuracy 50.0 [25.0, 75.0] of 8",
        "nlu base likelihood 50.0 [25.0, 75.0] of 8",
        "math base m - (no example counts)",
    ]


def test_there_are_two_protocols() -> None:
    assert set(PROTOCOLS) == {"fixed", "paper"}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_judges_each_output_of_each_example(name: str) -> None:
    opened, protocol = session(), PROTOCOLS[name]
    examples = SETS["math"]
    prepared = protocol.prepare(examples, opened.params, opened.tokenizer)
    judged = protocol.judge(prepared, [["5", "6"], ["5"], [""]], unsafe=False)
    assert [len(item.verdicts) for item in judged] == [2, 1, 1]
    assert [item.verdicts[0].correct for item in judged] == [True, True, False]


def test_vllm_is_refused_where_it_cannot_run(tmp_path: Path) -> None:
    from lori_core.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"evaluation\.engine: vllm needs the package vllm and a"):
        evaluate(session(engine="vllm"), None, SETS, "base", tmp_path)
