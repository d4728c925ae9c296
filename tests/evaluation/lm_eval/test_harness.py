import json
import logging
import math
import os
import random
import shutil
import socket
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lori_core.adapters import attach
from lori_core.core.errors import DataError, InputError
from lori_core.core.files.atomic import read_jsonl, write_jsonl
from lori_core.evaluation.lm_eval import harness, harness_guard, harness_results
from lori_core.evaluation.statistics import interval
from lori_core.models import base_model
from support import random_adapter, tiny

TASKS = Path(__file__).parents[1] / "harness_tasks"
LETTERS = json.loads((TASKS / "letters.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    model, folder, _ = tiny("llama")
    return model, base_model.load_tokenizer(folder)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Offline, with a cache of the tests' own, and a failure for whoever calls out all the same."""
    import datasets
    import huggingface_hub

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    cache = tmp_path_factory.getbasetemp() / "datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


@pytest.fixture
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the harness's own tasks, whose list takes seconds to read."""
    monkeypatch.setattr(harness, "_registry", dict)


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@torch.inference_mode()
def logprob(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    """Return the log-likelihood of a continuation, by one plain pass."""
    before, after = ids(tokenizer, context), ids(tokenizer, continuation)
    logits = model(input_ids=torch.tensor([before + after])).logits[0]
    logprobs = torch.log_softmax(logits[len(before) - 1 : -1], dim=-1)
    return float(logprobs[torch.arange(len(after)), after].sum())


@torch.inference_mode()
def greedy(model: Any, tokenizer: Any, context: str, tokens: int) -> str:
    """Return what the model writes, a token at a time and without a cache, up to a line's end."""
    written: list[int] = []
    while len(written) < tokens and (not written or written[-1] != tokenizer.eos_token_id):
        logits = model(input_ids=torch.tensor([ids(tokenizer, context) + written])).logits
        written.append(int(logits[0, -1].argmax()))
    text: str = tokenizer.decode(written, skip_special_tokens=True)
    return text.split("\n")[0]


def by_hand(model: Any, tokenizer: Any) -> list[list[float]]:
    """Return each option's log-likelihood, for each question of the task `letters`."""
    return [
        [
            logprob(model, tokenizer, f"Question: {row['question']}\nAnswer:", f" {option}")
            for option in row["options"]
        ]
        for row in LETTERS
    ]


def logged(task: harness_results.TaskResult) -> list[list[float]]:
    return [[answer[0][0] for answer in sample["resps"]] for sample in task.samples]


def close(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> bool:
    return [pytest.approx(row, abs=1e-3) for row in expected] == list(found)


def with_task(folder: Path, name: str, **changed: Any) -> Path:
    """Write the task `letters` under another name, with other fields, and its data, to a folder."""
    import yaml

    config = yaml.safe_load((TASKS / "letters.yaml").read_text(encoding="utf-8"))
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config | {"task": name} | changed))
    shutil.copy(TASKS / "letters.json", folder)
    return folder


def test_multiple_choice_is_the_argmax_of_log_likelihoods(base: tuple[Any, Any]) -> None:
    result = harness.run(*base, ["letters"], include_path=TASKS, batch_size=3)

    expected = by_hand(*base)
    assert close(logged(result.tasks["letters"]), expected)
    right = [
        np.argmax(row) == letter["answer"] for row, letter in zip(expected, LETTERS, strict=True)
    ]
    for_length = [
        np.argmax(np.array(row) / [len(option) for option in letter["options"]]) == letter["answer"]
        for row, letter in zip(expected, LETTERS, strict=True)
    ]
    assert 0 < sum(for_length) < sum(right) < 8  # so that the two cannot be taken for each other
    task = result.tasks["letters"]
    assert (task.version, task.shots) == ("1.5", 0)
    for score, metric, hits in zip(
        task.scores, ("acc", "acc_norm"), (right, for_length), strict=True
    ):
        rate = sum(hits) / 8
        assert (score.metric, score.filter, score.n) == (metric, "none", 8)
        assert score.value == rate
        assert score.stderr == pytest.approx(math.sqrt(rate * (1 - rate) / 7))
        assert (score.low, score.high) == pytest.approx(interval(int(sum(hits)), 8))
        assert score.higher_is_better is True
        assert [sample[metric] for sample in task.samples] == [float(hit) for hit in hits]
    assert result.notes == ()


def test_exact_match_is_of_what_is_written_greedily(base: tuple[Any, Any], tmp_path: Path) -> None:
    words = ["one", "two", "three", "four", "five", "six"]
    written = [greedy(*base, f"Repeat: {word}", 8) for word in words]
    assert all(written)
    rows = [
        {"word": word, "answer": text if number < 4 else f"{text}."}
        for number, (word, text) in enumerate(zip(words, written, strict=True))
    ]
    shutil.copy(TASKS / "echo.yaml", tmp_path)
    (tmp_path / "echo.json").write_text(json.dumps(rows), encoding="utf-8")

    task = harness.run(*base, ["echo"], include_path=tmp_path, batch_size=4).tasks["echo"]

    (score,) = task.scores
    assert (score.metric, score.value, score.n) == ("exact_match", 4 / 6, 6)
    assert (score.low, score.high) == pytest.approx(interval(4, 6))
    assert [sample["resps"] for sample in task.samples] == [[[text]] for text in written]


def test_a_model_is_scored_with_its_adapter(base: tuple[Any, Any]) -> None:
    model, tokenizer = tiny("llama")[0], base[1]
    plain = by_hand(model, tokenizer)
    worn = attach.apply_adapter(model, random_adapter(alpha=64)).eval()
    weights = {name: value.clone() for name, value in worn.state_dict().items()}

    result = harness.run(worn, tokenizer, ["letters"], include_path=TASKS)

    assert close(logged(result.tasks["letters"]), by_hand(worn, tokenizer))
    assert not close(logged(result.tasks["letters"]), plain)
    assert weights.keys() == worn.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in worn.state_dict().items())
    worn.unload()
    assert close(by_hand(model, tokenizer), plain)


def test_data_is_found_from_any_folder_and_results_are_repeated(
    base: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["letters", "echo"]
    here = harness.run(*base, names, include_path=Path(os.path.relpath(TASKS)), batch_size=2)
    monkeypatch.chdir(tmp_path)
    there = harness.run(*base, [*names, "letters"], include_path=TASKS, batch_size=2)
    assert here == there
    assert list(here.tasks) == names
    assert list(tmp_path.iterdir()) == []


def test_a_limit_takes_the_first_examples(base: tuple[Any, Any]) -> None:
    task = harness.run(*base, ["letters"], include_path=TASKS, limit=3).tasks["letters"]
    assert [sample["doc"] for sample in task.samples] == LETTERS[:3]
    assert [score.n for score in task.scores] == [3, 3]


def test_results_are_plain_json(base: tuple[Any, Any], tmp_path: Path) -> None:
    result = harness.run(*base, ["letters"], include_path=TASKS, limit=2)
    assert json.loads(json.dumps(result.as_dict())) == result.as_dict()
    assert list(result.as_dict()["tasks"]["letters"]) == ["version", "shots", "scores"]
    assert result.as_dict()["harness"] == result.harness
    write_jsonl(tmp_path / "samples.jsonl", result.tasks["letters"].samples)
    assert tuple(read_jsonl(tmp_path / "samples.jsonl")) == result.tasks["letters"].samples


def test_the_seed_draws_the_examples_shown(base: tuple[Any, Any], tmp_path: Path) -> None:
    folder = with_task(tmp_path, "shown", num_fewshot=2, fewshot_split="test")
    prompts = []
    for seed in (0, 0, 1):
        task = harness.run(*base, ["shown"], include_path=folder, seed=seed).tasks["shown"]
        assert task.shots == 2
        prompts.append([sample["arguments"][0][0] for sample in task.samples])
    assert prompts[0] == prompts[1] != prompts[2]
    assert all(prompt.count("Question:") == 3 for prompt in prompts[0])


def test_the_chat_template_is_applied_when_asked(
    base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="tokenizer has no chat template"):
        harness.run(*base, ["letters"], include_path=TASKS, apply_chat_template=True)
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}[answer] "
    monkeypatch.setattr(base[1], "chat_template", template)
    result = harness.run(*base, ["letters"], include_path=TASKS, limit=1, apply_chat_template=True)
    (sample,) = result.tasks["letters"].samples
    assert sample["arguments"][1] == ["[user] Question: Which comes first?\nAnswer:[answer] ", "a"]


def test_a_chat_template_does_not_read_the_clock(
    base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{{ strftime_now('%Y-%m-%d') }} {% for m in messages %}{{ m.role }}{% endfor %}:"
    monkeypatch.setattr(base[1], "chat_template", template)
    result = harness.run(*base, ["letters"], include_path=TASKS, limit=1, apply_chat_template=True)
    (sample,) = result.tasks["letters"].samples
    assert sample["arguments"][1] == ["2024-07-26 user:", "a"]
    assert base[1].chat_template == template


def test_a_group_is_summed_up_beside_its_tasks(base: tuple[Any, Any], tmp_path: Path) -> None:
    with_task(tmp_path, "left")
    with_task(tmp_path, "right")
    (tmp_path / "both.yaml").write_text(
        "group: both\ntask: [left, right]\naggregate_metric_list: [{metric: acc}]\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "_registry", dict)
        tasks = harness.run(*base, ["both"], include_path=tmp_path).tasks
        with pytest.raises(InputError, match="left is named twice, by both and left"):
            harness.run(*base, ["both", "left"], include_path=tmp_path)
    assert set(tasks) == {"left", "right", "both"}
    (score,) = tasks["both"].scores
    assert (score.value, score.n) == (tasks["left"].scores[0].value, 16)
    assert score.stderr is not None
    assert (score.low, score.high) == pytest.approx(
        (score.value - 1.96 * score.stderr, score.value + 1.96 * score.stderr)
    )
    assert tasks["both"].samples == ()


def test_what_is_no_mean_gets_the_bootstrap_of_the_harness(
    base: tuple[Any, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from lm_eval.api.metrics import _bootstrap_internal_no_mp, perplexity, sample_stddev

    folder = with_task(
        tmp_path,
        "perplexed",
        output_type="loglikelihood",
        doc_to_choice=None,
        doc_to_target="{{options[0]}}",
        metric_list=[{"metric": "perplexity", "aggregation": "perplexity"}, {"metric": "acc"}],
    )
    # The prompt ends in no space, so that the target begins right after it.
    expected = [
        logprob(*base, f"Question: {row['question']}\nAnswer:", row["options"][0])
        for row in LETTERS
    ]
    task = harness.run(*base, ["perplexed"], include_path=folder).tasks["perplexed"]
    assert capfd.readouterr().out == ""
    score, accuracy = task.scores
    assert score.value == pytest.approx(math.exp(-sum(expected) / 8), rel=1e-3)
    assert score.higher_is_better is False
    values = [sample["perplexity"] for sample in task.samples]
    theirs = sample_stddev(_bootstrap_internal_no_mp(perplexity, values, harness.RESAMPLES))
    assert score.stderr == pytest.approx(theirs)
    assert score.high == pytest.approx(score.value + 1.96 * theirs)  # far above 1, and not cut
    assert (accuracy.low, accuracy.high) == pytest.approx(interval(0, 8))


@pytest.mark.parametrize(
    ("values", "value", "stderr", "bounded", "expected"),
    [
        ([1, 0, 1.0, True], 0.75, 0.25, True, interval(3, 4)),
        ([1], 1.0, None, True, interval(1, 1)),
        # With a third at its worst: 0.5 and 1 at the random weights of a uniform simplex.
        ([0.5, 1.0], 0.75, 0.25, True, (0.05**0.5 / 2, (1 + 0.975**0.5) / 2)),
        ([0.0, 1.0], 0.9, 0.5, True, (0.0, 1.0)),  # no mean of its values
        ([[1, 0], [0, 0]], 0.5, 0.1, False, (0.304, 0.696)),
        ([-3.0, -4.0], 33.0, 10.0, False, (13.4, 52.6)),
        ([], 0.5, None, True, (None, None)),
    ],
)
def test_intervals(
    values: list[Any], value: float, stderr: float | None, bounded: bool, expected: Any
) -> None:
    found = harness_results._interval(value, stderr, values, bounded)
    assert found == (expected if None in expected else pytest.approx(expected))


def test_a_prompt_that_is_cut_is_noted_once(base: tuple[Any, Any], tmp_path: Path) -> None:
    folder = with_task(tmp_path, "long", doc_to_text="{{question * 100}}")
    (note,) = harness.run(*base, ["long"], include_path=folder).notes
    assert "exceeds model's maximum length (1024)" in note
    assert note.endswith(" times)")


def test_everything_is_left_as_it_was(base: tuple[Any, Any]) -> None:
    import datasets
    import evaluate
    from lm_eval.api import metrics, task

    def state() -> list[Any]:
        log = logging.getLogger("lm_eval")
        numbers = (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )
        return [
            *(datasets.load_dataset, datasets.are_progress_bars_disabled(), evaluate.load),
            *(metrics.bootstrap_stderr, task.tqdm, log.level, log.propagate, log.handlers[:]),
            *(sys.stdout, Path.cwd(), warnings.filters[:], numbers, base[1].padding_side),
        ]

    before = state()
    harness.run(*base, ["letters"], include_path=TASKS, limit=1, seed=5)
    with pytest.raises(InputError):
        harness.run(*base, ["letters", "echo"], include_path=TASKS, limit=0)
    assert state() == before


def test_nothing_is_counted_on_the_hub(
    base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the hub may be reached, a task on local files still makes no connection."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    tried = []

    def note(*place: Any) -> None:
        tried.append(place)
        raise OSError

    monkeypatch.setattr(socket.socket, "connect", note)
    monkeypatch.setattr(socket, "getaddrinfo", note)
    harness.run(*base, ["letters"], include_path=TASKS, limit=1)
    assert tried == []


def test_without_the_package_it_says_what_to_install(
    base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"not installed \(pip install 'lori\[harness\]'\)"):
        harness.run(*base, ["letters"], include_path=TASKS)


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        ([], {}, "tasks: expected the names of one or more tasks"),
        ("letters", {}, "tasks: expected the names of one or more tasks, got 'letters'"),
        (["letters"], {"limit": 0}, "limit: expected a whole number, at least 1, got 0"),
        (["letters"], {"batch_size": -1}, "batch_size: expected a whole number"),
        (["letters"], {"include_path": TASKS / "none"}, "none: no such folder, or no task file"),
        (["leters"], {}, "task 'leters' is unknown; nearest: letters .in --include-path: arc_"),
        ([str(TASKS / "echo.yaml")], {}, "echo.yaml' is unknown"),
    ],
)
@pytest.mark.usefixtures("_no_registry")
def test_wrong_arguments_are_refused(
    base: tuple[Any, Any], tasks: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        harness.run(*base, tasks, **{"include_path": TASKS} | options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        (
            {"dataset_path": "nobody/nothing", "dataset_kwargs": None},
            DataError,
            "task odd: the data set nobody/nothing is not on this machine: .*--include-path",
        ),
        (
            {"dataset_kwargs": {"data_files": {"test": "absent.json"}}},
            DataError,
            "task odd: Unable to find .*absent.json",
        ),
        (
            {"dataset_kwargs": {"data_files": {"test": ["$LORI_NOT_SET/absent.json"]}}},
            DataError,
            "LORI_NOT_SET/absent.json: this environment variable is not set",
        ),
        ({"unsafe_code": True}, InputError, "task odd: it runs code .* lm-eval has no sandbox"),
        (
            {"metric_list": [{"metric": "code_eval", "hf_evaluate": True}]},
            InputError,
            "task odd: it runs code that the model writes",
        ),
        (
            {"output_type": "generate_until", "metric_list": [{"metric": "rouge"}]},
            InputError,
            "task odd: its metric 'rouge' is code from the hub, which is never run",
        ),
        ({"doc_to_image": "question"}, InputError, "task odd: it needs a model that sees or hears"),
        ({"output_type": "mime"}, InputError, "task odd: cannot be loaded: ValueError: Got inval"),
        ({"doc_to_text": "{{"}, InputError, "task odd: cannot be loaded: TemplateSyntaxError"),
    ],
)
def test_tasks_that_cannot_be_run_are_refused(
    base: tuple[Any, Any], tmp_path: Path, changed: dict[str, Any], kind: Any, message: str
) -> None:
    folder = with_task(tmp_path, "odd", **changed)
    with pytest.raises(kind, match=message) as error:
        harness.run(*base, ["odd"], include_path=folder)
    assert "\n" not in str(error.value)


def test_a_metric_that_a_task_file_fetches_while_it_runs_is_refused(
    base: tuple[Any, Any], tmp_path: Path
) -> None:
    (tmp_path / "scoring.py").write_text(
        "import evaluate\n\ndef score(doc, results):\n    return evaluate.load('bleu')\n"
    )
    folder = with_task(tmp_path, "late")
    with (folder / "late.yaml").open("a") as file:
        file.write("process_results: !function scoring.score\n")
    with pytest.raises(InputError, match="task late: its metric 'bleu' is code from the hub"):
        harness.run(*base, ["late"], include_path=folder)


def test_a_package_that_a_task_needs_is_named(base: tuple[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "scoring.py").write_text("import no_such_package\n")
    folder = with_task(tmp_path, "needy")
    with (folder / "needy.yaml").open("a") as file:
        file.write("process_results: !function scoring.score\n")
    with pytest.raises(InputError, match="task needy: No module named 'no_such_package'"):
        harness.run(*base, ["needy"], include_path=folder)


def test_a_broken_task_file_is_named_with_its_line(base: tuple[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("task: broken\nmetric_list: [\n")
    with pytest.raises(InputError, match=r"broken\.yaml:3: not valid YAML"):
        harness.run(*base, ["broken"], include_path=tmp_path)


def test_data_files_keep_their_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORI_TEST_PLACE", "/data")
    files = {"test": ["a.json", "/b.json"], "train": "$LORI_TEST_PLACE/c.json", "x": "hf://d/e"}
    assert harness_guard._located(files, Path("/tasks")) == {
        "test": ["/tasks/a.json", "/b.json"],
        "train": "/data/c.json",
        "x": "hf://d/e",
    }


@pytest.mark.real
def test_the_registry_has_the_tasks_of_the_paper(base: tuple[Any, Any]) -> None:
    names = ["boolq", "piqa", "social_iqa", "arc_easy", "arc_challenge", "openbookqa"]
    names += ["hellaswag", "winogrande", "gsm8k"]
    manager = harness._task_manager(names, None)
    assert all(manager.task_index[name].cfg["task"] == name for name in names)
    with pytest.raises(InputError, match=r"'arc_eazy' is unknown; nearest: .*arc_easy"):
        harness.run(*base, ["arc_eazy"])
    with pytest.raises(DataError, match="arc_easy: the data set allenai/ai2_arc is not on this"):
        harness.run(*base, ["arc_easy"])
    for name in ("humaneval", "mbpp"):
        with pytest.raises(InputError, match=f"task {name}: it runs code that the model writes"):
            harness.run(*base, [name])


FILES = Path(os.environ.get("LORI_DATASETS", "../shared/datasets"))


@pytest.mark.datasets
@pytest.mark.skipif(not FILES.is_dir(), reason=f"no data sets in {FILES} (set LORI_DATASETS)")
def test_public_files_can_be_given_as_a_task(
    base: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORI_DATASETS", str(FILES.resolve()))
    rows = json.loads((FILES / "nlu/arc-challenge/test.json").read_text(encoding="utf-8"))[:8]
    result = harness.run(*base, ["arc_challenge_files"], include_path=TASKS, limit=8)
    task = result.tasks["arc_challenge_files"]
    expected = [
        [
            logprob(*base, row["instruction"], f"\nthe correct answer is answer{option}")
            for option in (1, 2, 3, 4)
        ]
        for row in rows
    ]
    assert close(logged(task), expected)
    hits = [
        f"answer{np.argmax(scores) + 1}" == row["answer"]
        for scores, row in zip(expected, rows, strict=True)
    ]
    assert [sample["target"] for sample in task.samples] == [
        int(row["answer"][-1]) - 1 for row in rows
    ]
    (score,) = task.scores
    assert (score.value, score.n) == (sum(hits) / 8, 8)
    assert (score.low, score.high) == pytest.approx(interval(sum(hits), 8))


@pytest.mark.usefixtures("_no_registry")
def test_a_tokenizer_that_appends_eos_asks_the_same_questions(base: tuple[Any, Any]) -> None:
    from tokenizers.processors import TemplateProcessing

    model, tokenizer = base
    expected = harness.run(model, tokenizer, ["letters"], include_path=TASKS, limit=3)
    appends = base_model.load_tokenizer(Path(tokenizer.name_or_path))
    processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 258)])
    appends.backend_tokenizer.post_processor = processor
    found = harness.run(model, appends, ["letters"], include_path=TASKS, limit=3)
    assert logged(found.tasks["letters"]) == logged(expected.tasks["letters"])
    assert appends("a")["input_ids"] == [*ids(tokenizer, "a"), 258]


def test_only_a_fast_tokenizer_can_be_kept_from_appending() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(InputError, match="appends '</s>' to every text"):
        harness._without_suffix(ByT5Tokenizer())
