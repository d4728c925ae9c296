"""A gate of your own: may an adapter replace the model that is served?

`lori gate` does this by the section `gate` of `params.yaml`, with MLflow's registry. Here the same
rules are applied to any two adapters, and one rule of your own is added.

    python examples/own_gate.py OUT [--candidate ADAPTER] [--champion ADAPTER] [--base BASE]

Exit code 1 if the candidate is refused. Without a candidate the base model itself is judged;
without a champion it is compared with the base model.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import lori_core as lori
from lori_core.config import Bound, GateSection
from lori_core.evaluation.gate import GateDecision, as_markdown, decide
from lori_core.evaluation.gate_rules import Scored

TASKS = ["bundled-math", "bundled-nlu"]
RULES = GateSection(
    margin=0.3,  # what a task may lose to the champion; the fewer items, the wider it must be
    confidence=0.9,
    least_items=20,
    rules={"score.bundled-nlu": Bound(at_least=0.0), "mean_words": Bound(at_most=200)},
)


@lori.gate_rule("mean_words", "words", "how many words an output has on average", least=0, most=1e6)
def mean_words(at: lori.RuleInput) -> float:
    """Return the mean number of words of the candidate's outputs: a rule of your own."""
    files = at.candidate.files.values()
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    return sum(len(json.loads(line)["output"].split()) for line in lines) / len(lines)


def scored(name: str, adapter: Path | None, base: str, out: Path) -> Scored:
    """Score a model and return what the gate needs: the files of its verdicts."""
    folder = out / name
    scores = lori.evaluate(adapter, tasks=TASKS, base=base, limit=24, out=folder)
    files = {task: folder / "model" / f"{task}.jsonl" for task in scores}
    return Scored(name, files)


def main(
    out: Path,
    candidate: Path | None = None,
    champion: Path | None = None,
    base: str = "random:llama",
) -> GateDecision:
    """Return the decision on the candidate, and print it with examples."""
    decision = decide(
        scored("candidate", candidate, base, out),
        scored("champion", champion, base, out),
        None,  # no adapter to measure forgetting against
        RULES,
    )
    print(as_markdown(decision))
    return decision


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A gate of your own.")
    parser.add_argument("out", type=Path, help="a folder for outputs and verdicts")
    parser.add_argument("--candidate", type=Path, help="an adapter's folder")
    parser.add_argument("--champion", type=Path, help="an adapter's folder")
    parser.add_argument("--base", default="random:llama", help="the base model")
    given = parser.parse_args()
    sys.exit(0 if main(given.out, given.candidate, given.champion, given.base).passed else 1)
