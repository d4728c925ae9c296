"""A batch without padding, in which a beginning that several examples share is computed once.

In a causal model a token's states depend on the tokens before it alone. So the batch is a tree:
each node is a token after its whole past, and examples with one beginning share those nodes. The
nodes in a row are what the linear maps see; attention lays each example out again
(`lori_core.packed`). The losses are those of the padded batch, example by example.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lori_core.data.prompts import Encoded

#: What a packed batch consists of; `packed.Packing` has the same fields but the first.
FIELDS = ("input_ids", "position_ids", "slots", "places", "shared", "uses", "offsets")


def pack_batch(batch: Sequence[Encoded], share: bool = True) -> dict[str, Tensor]:
    """Lay a batch out as the nodes of its tree.

    Args:
        batch: the examples.
        share: whether equal beginnings are one; with dropout each example needs its own.

    Returns:
        int64 tensors, for T nodes, B examples of at most L tokens, and S target tokens:
        `input_ids`, `position_ids`: [1, T];
        `slots`: [B, L], the node of each token; 0 after an example's end, where causal attention
        from inside never looks;
        `places`: [T], a place in the flattened `slots` that holds this node;
        `shared`, `uses`, `offsets`: the nodes in more than one place, all places of the first, then
        of the second, …, and where each one's begin;
        `predicting`: [S], the node before each target token; `targets`: [S]; `counts`: [B], how
        many targets each example has.
    """
    longest = max(len(item) for item in batch)
    children: dict[tuple[int, int], int] = {}
    ids: list[int] = []
    depths: list[int] = []
    slots = torch.zeros(len(batch), longest, dtype=torch.long)
    predicting: list[int] = []
    for row, item in enumerate(batch):
        tokens = item.prompt + item.target
        path = _path(tokens, children, ids, depths, root=-1 if share else -1 - row)
        slots[row, : len(path)] = torch.tensor(path)
        # The first token of all has nothing before it to predict it, as in any causal model.
        predicting += path[max(len(item.prompt), 1) - 1 : -1]
    targets = [token for item in batch for token in (item.prompt + item.target)[_first(item) :]]
    inside = torch.arange(longest) < torch.tensor([len(item) for item in batch])[:, None]
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([depths]),
        "slots": slots,
        **_places(slots, inside, len(ids)),
        "predicting": torch.tensor(predicting, dtype=torch.long),
        "targets": torch.tensor(targets, dtype=torch.long),
        "counts": torch.tensor([len(item) - _first(item) for item in batch]),
    }


def _first(item: Encoded) -> int:
    """Return the place of the first token that is predicted."""
    return max(len(item.prompt), 1)


def _path(
    tokens: Sequence[int],
    children: dict[tuple[int, int], int],
    ids: list[int],
    depths: list[int],
    root: int,
) -> list[int]:
    """Return an example's nodes, after adding those that are new."""
    path = []
    node = root
    for depth, token in enumerate(tokens):
        known = len(ids)
        node = children.setdefault((node, token), known)
        if node == known:
            ids.append(token)
            depths.append(depth)
        path.append(node)
    return path


def _places(slots: Tensor, inside: Tensor, nodes: int) -> dict[str, Tensor]:
    """Return where each node is, once, and all places of those that are in several."""
    flat = inside.flatten().nonzero()[:, 0]
    order = slots.flatten()[flat].sort(stable=True)
    at = flat[order.indices]
    counts = order.values.bincount(minlength=nodes)
    starts = counts.cumsum(0) - counts
    several = counts > 1
    uses = at[several[order.values]]
    lengths = counts[several]
    return {
        "places": at[starts],
        "shared": several.nonzero()[:, 0],
        "uses": uses,
        "offsets": lengths.cumsum(0) - lengths,
    }
