"""The comparison's data: MetaMathQA to train on, GSM8K to test on, Wikipedia for forgetting.

Files are read from the folder `LORI_DATASETS`; nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.peft_comparison.settings import Run
from lori_core.core.errors import DataError
from lori_core.data.batching import IGNORED
from lori_core.data.prompts import ids_with_bos
from lori_core.data.sources.files import record_files

#: The longest question and answer together that is trained on, in characters.
MOST_CHARACTERS = 1300
#: The batches that are sorted by length together; the batches of a bucket follow one another.
BUCKET = 20
#: The Wikipedia articles whose loss is measured.
ARTICLES = 100
#: The names of the files of each set, below `LORI_DATASETS`; the first that exists is read.
FILES = {
    "MetaMathQA": ("metamathqa/MetaMathQA-395K.json", "metamathqa/train.jsonl"),
    "GSM8K's training set": ("gsm8k/train.jsonl",),
    "GSM8K's test set": ("gsm8k/test.jsonl",),
    "FineWiki": ("finewiki/train.jsonl", "finewiki/train.parquet"),
}


@dataclass(frozen=True)
class Data:
    """The texts of a run.

    Attributes:
        train: (question, answer) pairs of MetaMathQA, in the file's order.
        validation: (question, solution) pairs of GSM8K's training set.
        test: those of its test set.
        articles: Wikipedia texts.
    """

    train: list[tuple[str, str]]
    validation: list[tuple[str, str]]
    test: list[tuple[str, str]]
    articles: list[str]


def paths() -> dict[str, Path]:
    """Return the file of each data set.

    Raises:
        DataError: one or more are missing; the message names all of them.
    """
    folder = Path(os.environ.get("LORI_DATASETS", "../shared/datasets"))
    chosen, missing = {}, []
    for name, candidates in FILES.items():
        existing = [folder / file for file in candidates if (folder / file).is_file()]
        if existing:
            chosen[name] = existing[0]
        else:
            missing.append(f"{name} ({folder / candidates[0]})")
    if missing:
        raise DataError(
            f"LORI_DATASETS: missing {', '.join(missing)}; docs/experiments.md says where the "
            "files come from, and --tiny needs none"
        )
    return chosen


def read(files: dict[str, Path], run: Run) -> Data:
    """Read what a run needs: only as much of MetaMathQA as its steps use.

    Raises:
        DataError: a file cannot be read, a record lacks a field, or there are too few records.
    """
    needed = max(run.train.max_steps, run.calibration_steps) * run.train.batch_size
    # Whole buckets: the order of the batches of a bucket depends on all its rows.
    bucket = run.train.batch_size * BUCKET
    most = -(-needed // bucket) * bucket
    train: list[tuple[str, str]] = []
    for query, response in _pairs(files["MetaMathQA"], "query", "response"):
        if len(f"{query} {response}") <= MOST_CHARACTERS:
            train.append((query, response))
        if len(train) == most:
            break
    if len(train) < needed:
        raise DataError(
            f"{files['MetaMathQA']}: {len(train)} records of at most {MOST_CHARACTERS} characters, "
            f"but the steps need {needed}; lower --steps and --calibration-steps"
        )
    known = list(_pairs(files["GSM8K's training set"], "question", "answer"))
    test = list(_pairs(files["GSM8K's test set"], "question", "answer"))
    articles = [text for text, _ in _pairs(files["FineWiki"], "text", "text", ARTICLES)]
    return Data(train, validation_of(known, run.validation), test, articles)


def _pairs(
    path: Path, first: str, second: str, most: int | None = None
) -> Iterator[tuple[str, str]]:
    """Yield two text fields of each record."""
    for number, (where, record) in enumerate(record_files.records(path)):
        if number == most:
            return
        for name in (first, second):
            if not isinstance(record, dict) or not isinstance(record.get(name), str):
                raise DataError(f"{where}: expected an object with the texts {first}, {second}")
        yield record[first], record[second]


def validation_of(known: Sequence[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """Return the validation questions: the first of a permutation by numpy's seed 0."""
    places = np.arange(len(known))
    np.random.RandomState(0).shuffle(places)
    return [known[place] for place in places[:count]]


def training_ids(run: Run, data: Data, tokenizer: object) -> list[list[int]]:
    """Return the token ids of each training row: question and answer as one text, truncated."""
    train = run.train
    texts = (train.query_template.format(query=query) + answer for query, answer in data.train)
    return [ids_with_bos(text, tokenizer)[: train.max_seq_length] for text in texts]


def batches(rows: Sequence[list[int]], size: int) -> Iterator[list[list[int]]]:
    """Yield batches in PEFT's order: buckets as they stand, each from its longest row down."""
    for start in range(0, len(rows), size * BUCKET):
        lengths = torch.tensor([len(row) for row in rows[start : start + size * BUCKET]])
        order = torch.argsort(lengths, descending=True).tolist()
        for first in range(0, len(order), size):
            yield [rows[start + place] for place in order[first : first + size]]


def padded(batch: Sequence[list[int]], end: int) -> tuple[dict[str, Tensor], int]:
    """Return a padded batch, and the number that divides its summed loss.

    All tokens of a row are learned, the question's too. Padding is the end-of-sequence token, and
    the first one of each row is learned; the longest rows of a batch have none. The loss is divided
    by the number of tokens without the padding.

    Args:
        batch: the token ids of each row.
        end: the id of the end-of-sequence token.
    """
    longest = max(map(len, batch))
    ids = torch.full((len(batch), longest), end)
    labels = torch.full((len(batch), longest), IGNORED)
    for row, own in enumerate(batch):
        ids[row, : len(own)] = torch.tensor(own)
        labels[row, : len(own) + 1] = ids[row, : len(own) + 1]
    return {"input_ids": ids, "labels": labels}, sum(map(len, batch))


def made(run: Run) -> Data:
    """Return made-up data for `--tiny`."""
    pairs = [
        (f"What is {n} plus {n + 1}?", f"{n} + {n + 1} = {2 * n + 1}\n#### {2 * n + 1}")
        for n in range(run.train.batch_size * BUCKET)
    ]
    train = [(query, answer.replace("\n#### ", "\nThe answer is: ")) for query, answer in pairs]
    return Data(train, pairs[: run.validation], pairs[-3:], ["An article about sums."] * 3)
