"""The ready-made sources, which `tasks.<task>.source` can name.

Data sets of the Hugging Face hub have no pinned commit here: the first pull records the commit in
`data/manifest.json`, and later pulls of the same definition use it. Each of them is a repository of
plain data files; `datasets` runs no loading script. Data sets under `$LORI_DATASETS` are files in
the format that their authors published.

The ids, splits, fields and licences of hub data sets are those of their documentation. The
conversions are tested on records of the documented format, not on the data sets themselves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lori_core.config import SourceSection
from lori_core.core.errors import ConfigError, unknown
from lori_core.data.sources.formats import needs
from lori_core.registries.data_source import DATA_SOURCES, PREFIX

_INSTRUCTION = {"prompt": "{instruction}\n\n{input}", "target": "{output}"}
_ANSWERED = {"prompt": "{instruction}", "target": "{output}", "answer": "{answer}"}
_ANSWER = {"prompt": "{instruction}", "target": "{output}"}
_REQUEST = {"prompt": "{prompt}", "target": ""}
_GOAL = {"prompt": "{Goal}", "target": ""}
_MBPP = "google-research-datasets/mbpp"
_NC = "CC-BY-NC-4.0"
_TRAIN = {"train": "train"}
_TRAIN_TEST = {"train": "train", "test": "test"}
_ALL = _TRAIN_TEST | {"validation": "validation"}
#: For data sets whose test split has no public answers: the validation split is the test split.
_VALIDATED = {"train": "train", "test": "validation"}


class Entry(NamedTuple):
    """A source with its purpose; `gated` if its owner must grant access."""

    purpose: str
    source: SourceSection
    gated: bool = False


def _bundled(name: str, licence: str) -> SourceSection:
    return SourceSection(kind="bundled", name=name, license=licence)


def _hub(name: str, licence: str, files: Any, **more: Any) -> SourceSection:
    return SourceSection(kind="hub", name=name, license=licence, files=files, **more)


def _files(folder: str, licence: str, files: Any, **more: Any) -> SourceSection:
    path = f"$LORI_DATASETS/{folder}"
    return SourceSection(kind="local", path=path, license=licence, files=files, **more)


def _benchmark(
    name: str, licence: str, form: str, scorer: str, files: Any, **more: Any
) -> SourceSection:
    """Return a hub data set in the format `form`; `form` is also the kind of its examples."""
    more = {"format": form, "scorer": scorer, "subset": form} | more
    return _hub(name, licence, files, **more)


def _arc(config: str) -> SourceSection:
    more = {"config": config, "subset": config.lower()}
    return _benchmark("allenai/ai2_arc", "CC-BY-SA-4.0", "arc", "choice", _ALL, **more)


def _nlu(folder: str) -> SourceSection:
    files = {"train": "train.json", "test": "test.json"}
    more: dict[str, Any] = {"fields": _ANSWERED, "scorer": "choice", "subset": folder}
    return _files(f"nlu/{folder}", "ODC-By", files, **more)


def _requests(name: str, licence: str, subset: str, answer: str, **more: Any) -> SourceSection:
    """Return a hub data set of requests without answers, in one split."""
    more = {"files": {"test": "train"}, "fields": _REQUEST, "subset": subset} | more
    return _hub(name, licence, scorer="refusal", answer=answer, **more)


def _jbb(split: str, answer: str) -> SourceSection:
    more = {"config": "behaviors", "files": {"test": split}, "fields": _GOAL}
    return _requests("JailbreakBench/JBB-Behaviors", "MIT", f"jbb-{split}", answer, **more)


def _or_bench(subset: str, answer: str, config: str) -> SourceSection:
    return _requests("bench-llm/or-bench", "CC-BY-4.0", subset, answer, config=config)


def _instructions(folder: str, file: str, subset: str) -> SourceSection:
    """Return a file of instructions with answers, for training only."""
    return _files(folder, _NC, {"train": file}, fields=_INSTRUCTION, subset=subset)


def _asked(split: str, file: str, subset: str, answer: str, **more: Any) -> SourceSection:
    """Return a file of requests of which the model should refuse all, or answer all."""
    more = {"scorer": "refusal", "subset": subset, "answer": answer} | more
    return _files("safety", _NC, {split: file}, **more)


def _labelled(form: str, licence: str, files: Any) -> SourceSection:
    """Return files of requests in the format `form`, each with its category and right answer."""
    return _files(f"safety/{form}", licence, files, format=form, scorer="refusal", subset=form)


_BUNDLED = {
    name: Entry(made.about, _bundled(name.removeprefix(PREFIX), made.license))
    for name, made in DATA_SOURCES.items()
    if made.origin is None
}

_TRAINING = {
    "commonsense-170k": Entry(
        "the paper's NLU training set: the eight choice sets below, in one form",
        _hub(
            "zwhe99/commonsense_170k",
            "unknown",
            _TRAIN,
            fields=_ANSWERED,
            scorer="choice",
            subset="commonsense",
        ),
    ),
    "codealpaca-20k": Entry(
        "the paper's code training set: instructions with programs",
        _hub(
            "sahil2801/CodeAlpaca-20k",
            "CC-BY-4.0",
            _TRAIN,
            fields=_INSTRUCTION,
            subset="codealpaca",
        ),
    ),
}

_CHOICES = {
    "boolq": Entry(
        "BoolQ: yes-no questions, asked without the passage",
        _benchmark("google/boolq", "CC-BY-SA-3.0", "boolq", "choice", _VALIDATED),
    ),
    # ybisk/piqa and allenai/social_i_qa are loading scripts, which `datasets` refuses since 4.0;
    # these two repositories are copies of their data as Parquet.
    "piqa": Entry(
        "PIQA: which of two ways reaches a physical goal",
        _benchmark("baber/piqa", "AFL-3.0", "piqa", "choice", _VALIDATED),
    ),
    "social-i-qa": Entry(
        "SocialIQA: why people act, and what follows",
        _benchmark("lighteval/siqa", "unknown", "social-i-qa", "choice", _VALIDATED),
    ),
    "arc-challenge": Entry("ARC: school science, the hard part", _arc("ARC-Challenge")),
    "arc-easy": Entry("ARC: school science, the easy part", _arc("ARC-Easy")),
    "openbookqa": Entry(
        "OpenBookQA: science facts applied",
        _benchmark("allenai/openbookqa", "unknown", "openbookqa", "choice", _ALL, config="main"),
    ),
    "hellaswag": Entry(
        "HellaSwag: how a described scene goes on",
        _benchmark("Rowan/hellaswag", "MIT", "hellaswag", "choice", _VALIDATED),
    ),
    "winogrande": Entry(
        "WinoGrande: which of two names fills a blank",
        _benchmark(
            "allenai/winogrande",
            "CC-BY",
            "winogrande",
            "choice",
            _VALIDATED,
            config="winogrande_xl",
        ),
    ),
}

_WORKED = {
    "gsm8k": Entry(
        "GSM8K: grade-school word problems",
        _benchmark("openai/gsm8k", "MIT", "gsm8k", "number", _TRAIN_TEST, config="main"),
    ),
    "openai-humaneval": Entry(
        "HumanEval: Python functions from their docstrings",
        _benchmark("openai/openai_humaneval", "MIT", "humaneval", "code", {"test": "test"}),
    ),
    "mbpp-sanitized": Entry(
        "MBPP, the verified part: Python functions from a sentence and tests",
        _benchmark(_MBPP, "CC-BY-4.0", "mbpp", "code", _ALL, config="sanitized"),
    ),
}

_REFUSALS = {
    "hex-phi": Entry(
        "HEx-PHI: requests to refuse",
        _requests(
            "LLM-Tuning-Safety/HEx-PHI",
            "gated",
            "harmful",
            "refuse",
            files={"test": "*.csv"},
            columns=["prompt"],
        ),
        gated=True,
    ),
    "advbench": Entry(
        "AdvBench: requests to refuse",
        _requests("walledai/AdvBench", "MIT", "advbench", "refuse"),
        gated=True,
    ),
    "harmbench": Entry(
        "HarmBench, the standard behaviours: requests to refuse",
        _requests("walledai/HarmBench", "MIT", "harmbench", "refuse", config="standard"),
        gated=True,
    ),
    "malicious-instruct": Entry(
        "MaliciousInstruct: requests to refuse",
        _requests("walledai/MaliciousInstruct", "unknown", "malicious-instruct", "refuse"),
        gated=True,
    ),
    "jbb-harmful": Entry("JailbreakBench: requests to refuse", _jbb("harmful", "refuse")),
    "or-bench-toxic": Entry(
        "OR-Bench: requests to refuse", _or_bench("or-bench-toxic", "refuse", "or-bench-toxic")
    ),
}

_OVER_REFUSALS = {
    "xstest": Entry(
        "XSTest: safe requests that look unsafe, and their unsafe contrasts",
        _benchmark("Paul/XSTest", "CC-BY-4.0", "xstest", "refusal", {"test": "train"}),
    ),
    "jbb-benign": Entry(
        "JailbreakBench: requests to answer, on the harmful ones' topics",
        _jbb("benign", "comply"),
    ),
    "or-bench-hard": Entry(
        "OR-Bench: requests to answer that many models refuse",
        _or_bench("or-bench-hard", "comply", "or-bench-hard-1k"),
    ),
}

_SOLVED = {"train": "train.jsonl", "test": "test.jsonl"}
_SAFETY_ONLY = "safety_only_data_Instructions.json"
_HARMBENCH = "harmbench_behaviors_text_{}.csv"
_VAL_TEST = (("validation", "val"), ("test", "test"))

_FILES = {
    "gsm8k-files": Entry(
        "GSM8K: grade-school word problems",
        _files("gsm8k", "MIT", _SOLVED, format="gsm8k", scorer="number", subset="gsm8k"),
    ),
    **{
        f"{name}-files": Entry(f"{entry.purpose} (by LLM-Adapters)", _nlu(name))
        for name, entry in _CHOICES.items()
    },
    "codealpaca-files": Entry(
        "the first CodeAlpaca: instructions with programs",
        _instructions("codealpaca", "code_alpaca_2k.json", "codealpaca"),
    ),
    "saferpaca-safety-files": Entry(
        "the safety part of Saferpaca: harmful requests with safe answers",
        _asked("train", _SAFETY_ONLY, "harmful", "refuse", fields=_ANSWER),
    ),
    "saferpaca-files": Entry(
        "the paper's safety training set: Alpaca and 2,000 safe answers",
        _instructions("safety", "saferpaca_Instructions_2000.json", "saferpaca"),
    ),
    "malicious-instructions-files": Entry(
        "I-MaliciousInstructions: requests to refuse",
        _asked("test", "I-MaliciousInstructions.json", "harmful", "refuse", format="instructions"),
    ),
    "harmless-instructions-files": Entry(
        "I-Alpaca: ordinary requests to answer",
        _asked("test", "I-Alpaca.json", "ordinary", "comply", format="instructions"),
    ),
    "xstest-files": Entry(
        "XSTest as its authors' CSV: safe requests that look unsafe, and unsafe contrasts",
        _labelled("xstest", "CC-BY-4.0", {"test": "xstest_prompts.csv"}),
    ),
    "harmbench-files": Entry(
        "HarmBench's text behaviours as its authors' CSV: requests to refuse, by category",
        _labelled("harmbench", "MIT", {split: _HARMBENCH.format(s) for split, s in _VAL_TEST}),
    ),
    "hex-phi-files": Entry(
        "HEx-PHI as JSON lines with prompt and category: requests to refuse",
        _files(
            "hex-phi",
            "gated",
            {"test": "hex-phi.jsonl"},
            scorer="refusal",
            answer="refuse",
            fields=_REQUEST | {"kind": "{category}"},
        ),
        gated=True,
    ),
}

ENTRIES: dict[str, Entry] = {
    **_BUNDLED,
    **_TRAINING,
    **_CHOICES,
    **_WORKED,
    **_REFUSALS,
    **_OVER_REFUSALS,
    **_FILES,
}
CATALOGUE: dict[str, SourceSection] = {name: entry.source for name, entry in ENTRIES.items()}


def resolve(source: str | SourceSection, where: str) -> SourceSection:
    """Return the definition of a source given by name; a section is returned unchanged.

    Raises:
        ConfigError: there is no source of that name; names `where`, a key of params.yaml.
    """
    if isinstance(source, SourceSection):
        return source
    known = named()
    if source not in known:
        raise ConfigError(f"{where}: {unknown('source', source, known)}")
    return known[source]


def named() -> dict[str, SourceSection]:
    """Return the sources that have a name: the ready-made ones and those of extensions."""
    added = {
        name: SourceSection(kind="extension", name=name, license=made.license)
        for name, made in DATA_SOURCES.items()
        if made.origin is not None
    }
    return CATALOGUE | added


def describe() -> list[dict[str, Any]]:
    """Return one row for each named source, for `lori sources`.

    A row has `name`, `purpose`, `scorer`, `where` (a hub id, a folder or a package), `splits`,
    `needs` (the fields of a record, for the user's own files of the same format), `license` and
    `gated` (the owner must grant access, and the user needs a hub token).
    """
    added = {
        name: Entry(DATA_SOURCES[name].about, source)
        for name, source in named().items()
        if name not in ENTRIES
    }
    return [_row(name, entry) for name, entry in {**ENTRIES, **added}.items()]


def _row(name: str, entry: Entry) -> dict[str, Any]:
    source = entry.source
    config = f" ({source.config})" if source.config else ""
    registered = DATA_SOURCES.get(name)
    where = (
        registered.where
        if registered
        else f"{source.name}{config}"
        if source.kind == "hub"
        else source.path
    )
    row: dict[str, Any] = {
        "scorer": registered.scorer if registered else source.scorer,
        "where": where,
        "splits": registered.splits if registered else tuple(source.files),
    }
    return {
        "name": name,
        "purpose": entry.purpose,
        **row,
        "needs": () if registered else needs(source),
        "license": source.license,
        "gated": entry.gated,
    }
