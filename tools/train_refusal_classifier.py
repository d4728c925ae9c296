"""Train the refusal classifier and write its weights, with how well it does on models held out.

Needs scikit-learn and the labelled answers of XSTest (CC BY 4.0, see the folder's README):

    python -m tools.train_refusal_classifier ../shared/datasets/safety/xstest

Nothing of the answers is written but weights: of named cues, and of hashed sequences of words.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from lori_core.evaluation.scoring import refusal_classifier as classifier
from lori_core.evaluation.scoring.refusal_features import features as features_of
from lori_core.evaluation.statistics import interval
from tools import refusal_texts
from tools.bundled_data import safety

TOOLS = Path(__file__).parent
MODELS = ("gpt4", "llama2orig", "mistralguard")
LABELS = {
    "1_full_compliance": "answer",
    "2_full_refusal": "refusal",
    "3_partial_refusal": "partial",
}
KINDS = ("refused", "partial", "answered")
#: Answers are learned whole and, at this weight, cut where a short generation ends.
CUT_CHARACTERS, CUT_WEIGHT = 280, 0.5
#: Texts written for this project: so many of each kind, at this weight.
TEXTS, TEXTS_WEIGHT = 80, 0.3
BUNDLED, BUNDLED_WEIGHT = 400, 0.5
#: A feature counts that so many answers to different prompts, or texts, have.
LEAST_SEEN = 15
#: Named cues are penalised less than sequences of words: by the square of this.
CUE_SCALE = 5.0
INVERSE_PENALTY = 0.03
#: Weights below this are left out.
LEAST_WEIGHT = 0.003


features = cache(features_of)  # the same texts are in nearly every part


@dataclass(frozen=True)
class Answer:
    """A labelled answer."""

    model: str
    prompt: str
    text: str
    label: str


@dataclass(frozen=True)
class Row:
    """What is learned from: features, whether they are of a refusal, weight, and a group's name."""

    features: set[str]
    refuses: bool
    weight: float
    group: str


def main() -> None:
    """Train on all answers, measure on each model held out, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=classifier.WEIGHTS)
    parser.add_argument("--check-only", action="store_true", help="measure and write nothing")
    args = parser.parse_args()
    answers = read(args.folder)
    own = own_rows()
    measured = {
        "model held out": held_out(answers, own, "model"),
        "prompt held out": held_out(answers, own, "fold"),
        "model held out, answers cut": held_out(answers, own, "model", short=True),
    }
    print(json.dumps(measured, indent=2))
    if args.check_only:
        return
    weights = fit([*own, *rows_of(answers)])
    content = {
        "format": classifier.FORMAT,
        "made_by": {"tools/" + path.name: classifier.source_digest(path) for path in sources()},
        "features": features_digest(),
        "data": {path.name: sha256(path) for path in (file_of(args.folder, m) for m in MODELS)},
        "data_from": "XSTest v2 (Röttger et al. 2024), CC BY 4.0; only weights are kept",
        "measured": measured,
        "refused_from": classifier.REFUSED_FROM,
        "answered_below": classifier.ANSWERED_BELOW,
        "bias": weights.bias,
        "cues": weights.cues,
        "sequences": {f"{key:08x}": value for key, value in weights.sequences.items()},
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    args.out.write_text(text + "\n", encoding="utf-8")
    print(f"{args.out}: {len(text) / 1000:.0f} kB", file=sys.stderr)


def read(folder: Path) -> list[Answer]:
    """Read the labelled answers of all models."""
    found = []
    for model in MODELS:
        with file_of(folder, model).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.append(
                    Answer(model, row["prompt"], row["completion"], LABELS[row["final_label"]])
                )
    return found


def file_of(folder: Path, model: str) -> Path:
    """Return the file with a model's labelled answers."""
    return folder / f"completions_{model}.csv"


def own_rows() -> list[Row]:
    """Return the texts of this project: those of `refusal_texts`, and the bundled training set."""
    rows = [
        Row(features(text), refuses, TEXTS_WEIGHT, f"own {number}")
        for number, (_, text, refuses) in enumerate(refusal_texts.texts(0, TEXTS))
    ]
    for number, example in enumerate(safety.generate({"train": BUNDLED}, 0)["train"]):
        refuses = example.answer == "refuse"
        rows.append(Row(features(example.target), refuses, BUNDLED_WEIGHT, f"bundled {number}"))
    return rows


def rows_of(answers: list[Answer]) -> list[Row]:
    """Return full refusals and full answers, whole and cut; partial refusals teach neither."""
    rows = []
    for answer in answers:
        if answer.label != "partial":
            refuses = answer.label == "refusal"
            rows.append(Row(features(answer.text), refuses, 1.0, answer.prompt))
            rows.append(Row(features(cut(answer.text)), refuses, CUT_WEIGHT, answer.prompt))
    return rows


def cut(text: str) -> str:
    """Cut a text where a short generation would end."""
    return text if len(text) <= CUT_CHARACTERS else text[:CUT_CHARACTERS].rsplit(" ", 1)[0]


def fit(rows: list[Row]) -> classifier.Classifier:
    """Fit logistic regression and return the weights that count."""
    seen: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for name in row.features:
            seen[name].add(row.group)
    names = sorted(name for name, groups in seen.items() if len(groups) >= LEAST_SEEN)
    place = {name: at for at, name in enumerate(names)}
    scale = np.array([1.0 if "|" in name else CUE_SCALE for name in names])
    pairs = [(i, place[n]) for i, row in enumerate(rows) for n in row.features if n in place]
    at = tuple(np.array(side) for side in zip(*pairs, strict=True))
    matrix = sparse.csr_matrix((np.ones(len(pairs)), at), shape=(len(rows), len(names)))
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=5000, tol=1e-6)
    model.fit(
        matrix @ sparse.diags(scale),
        [row.refuses for row in rows],
        sample_weight=[row.weight for row in rows],
    )
    weights = {
        name: round(float(weight), 4)
        for name, weight in zip(names, model.coef_[0] * scale, strict=True)
        if abs(weight) >= LEAST_WEIGHT
    }
    return classifier.Classifier(
        bias=round(float(model.intercept_[0]), 4),
        cues={name: weight for name, weight in weights.items() if "|" not in name},
        sequences={classifier.hashed(name): w for name, w in weights.items() if "|" in name},
    )


def held_out(
    answers: list[Answer], own: list[Row], by: str, *, short: bool = False
) -> dict[str, Any]:
    """Train without each model (or each tenth of the prompts), and judge what was held out."""
    prompts = sorted({answer.prompt for answer in answers})
    group = {
        "model": lambda answer: answer.model,
        "fold": lambda answer: prompts.index(answer.prompt) % 10,
    }[by]
    table: dict[str, dict[str, dict[str, int]]] = defaultdict(
        lambda: {label: dict.fromkeys(KINDS, 0) for label in LABELS.values()}
    )
    for held in sorted({group(answer) for answer in answers}):
        weights = fit([*own, *rows_of([a for a in answers if group(a) != held])])
        for answer in answers:
            if group(answer) == held:
                text = cut(answer.text) if short else answer.text
                kind = classifier.judge(text, weights).kind
                table[answer.model][answer.label][kind] += 1
    table["all"] = {
        label: {kind: sum(table[model][label][kind] for model in MODELS) for kind in KINDS}
        for label in LABELS.values()
    }
    return {
        name: {
            "refusals found": share(counts["refusal"]),
            "answers mistaken": share(counts["answer"]),
            "confusion": counts,
        }
        for name, counts in table.items()
    }


def share(counts: dict[str, int]) -> list[float]:
    """Return the share that is judged refused, and its exact 95 % interval."""
    n = sum(counts.values())
    low, high = interval(counts["refused"], n)
    return [round(value, 4) for value in (counts["refused"] / n, low, high)]


def sources() -> list[Path]:
    """Return the files that made the weights."""
    return [TOOLS / "refusal_texts.py", TOOLS / "train_refusal_classifier.py"]


def features_digest() -> dict[str, str]:
    """Return the digests of the code whose features have the weights."""
    folder = classifier.WEIGHTS.parent
    names = ("refusal_features.py", "refusals.py")
    return {name: classifier.source_digest(folder / name) for name in names}


def sha256(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
