"""Batches with little padding, in a reproducible order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from lori_core.data.prompts import Encoded

#: Batches per bucket sorted by length: more saves padding, fewer keeps the order more random.
BUCKET = 16
#: The label of tokens that the loss ignores.
IGNORED = -100


class LengthBuckets(Sampler[int]):
    """Shuffles examples, sorts each bucket of `BUCKET` batches by length, shuffles the batches.

    The order depends on (lengths, batch size, seed, epoch) only. Each `batch_size` consecutive
    indices are a batch; an incomplete batch comes last.

    Args:
        lengths: the tokens of each example.
        batch_size: the examples of a batch.
        seed: the seed of the shuffle.
    """

    def __init__(
        self, lengths: Sequence[int] | NDArray[np.int64], batch_size: int, seed: int
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration shuffles for; Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        bucket = self.batch_size * BUCKET
        batches = []
        for start in range(0, len(order), bucket):
            part = order[start : start + bucket]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        for index in [*random.permutation(len(full))]:
            yield from full[index].tolist()
        for batch in rest:
            yield from batch.tolist()


def collate(batch: Sequence[Encoded], pad_token_id: int) -> dict[str, Tensor]:
    """Pad a batch on the right; only learned tokens have labels, and padding is masked.

    Args:
        batch: the examples.
        pad_token_id: the token to pad with.

    Returns:
        `input_ids`, `attention_mask` and `labels`, int64, [batch, longest].
    """
    longest = max(len(item) for item in batch)
    ids = torch.full((len(batch), longest), pad_token_id)
    attention = torch.zeros((len(batch), longest), dtype=torch.long)
    labels = torch.full((len(batch), longest), IGNORED)
    for row, item in enumerate(batch):
        start, stop = len(item.prompt), len(item)
        ids[row, :stop] = torch.tensor(item.prompt + item.target)
        attention[row, :stop] = 1
        labels[row, start:stop] = torch.tensor(item.target)
        labels[row, [start + place for place in item.unlearned]] = IGNORED
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}
