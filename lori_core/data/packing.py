"""Packed batches: no padding, and a prefix that several examples share is computed once.

In a causal model, the states of a token depend only on the tokens before it. So a batch forms a
prefix tree: each node is a token together with all tokens before it, and examples with a common
prefix share its nodes. Linear layers process each node once; attention copies the nodes back to
the places of each example (`training.kernels.packed_attention`). The loss of each example equals
that of a padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lori_core.data.prompts import Encoded

#: Attention pads each example to the longest of its group. A new group starts when a group has
#: `GROUP` examples and the next one is shorter than `NARROWER` times its longest; smaller groups
#: would cost more in calls than they save in padding.
NARROWER, GROUP = 0.9, 4


def pack_batch(batch: Sequence[Encoded], share: bool = True) -> dict[str, Any]:
    """Return a batch as the nodes of its prefix tree.

    Args:
        batch: the examples.
        share: whether examples share the nodes of a common prefix; with dropout they must not.

    Returns:
        int64 tensors for T nodes, B examples, N places and S learned tokens:
        `input_ids`, `position_ids`: [1, T];
        `slots`: [N], the node at each place; places are groups of examples of similar length, each
        group [examples, longest] flattened, with node 0 after an example's end, which causal
        attention never sees from inside;
        `places`: [T], one place of each node;
        `shared`, `uses`, `offsets`: the nodes with more than one place, the places of each of them
        one after another, and the start of each node's places in `uses`;
        `predicting`: [S], the node before each learned token; `targets`: [S]; `counts`: [B], the
        number of learned tokens of each example.
        And `groups`: (examples, longest) of each group.
    """
    children: dict[tuple[int, int], int] = {}
    ids: list[int] = []
    depths: list[int] = []
    paths = []
    for row, item in enumerate(batch):
        tokens = item.prompt + item.target
        paths.append(_path(tokens, children, ids, depths, root=-1 if share else -1 - row))
    # No node precedes the first token of a row, so it is never a target.
    learned = [[n for n in range(1, len(item)) if item.learned(n)] for item in batch]
    rows = list(zip(batch, paths, learned, strict=True))
    slots, inside, groups = _lay_out(paths)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([depths]),
        "slots": slots,
        **_places(slots, inside, len(ids)),
        "predicting": torch.tensor([path[n - 1] for _, path, at in rows for n in at]),
        "targets": torch.tensor(
            [item.target[n - len(item.prompt)] for item, _, at in rows for n in at]
        ),
        "counts": torch.tensor([len(at) for at in learned]),
        "groups": groups,
    }


def _lay_out(paths: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, tuple[tuple[int, int], ...]]:
    """Return each place's node, whether the place is inside its example, and the groups' shapes."""
    groups: list[list[Sequence[int]]] = []
    for path in sorted(paths, key=len, reverse=True):
        if not groups or (len(groups[-1]) >= GROUP and len(path) < NARROWER * len(groups[-1][0])):
            groups.append([])
        groups[-1].append(path)
    slots = []
    inside = []
    for group in groups:
        longest = len(group[0])
        for path in group:
            slots += [*path, *[0] * (longest - len(path))]
            inside += [True] * len(path) + [False] * (longest - len(path))
    shapes = tuple((len(group), len(group[0])) for group in groups)
    return torch.tensor(slots), torch.tensor(inside), shapes


def _path(
    tokens: Sequence[int],
    children: dict[tuple[int, int], int],
    ids: list[int],
    depths: list[int],
    root: int,
) -> list[int]:
    """Return the nodes of an example, adding new ones to `children`, `ids` and `depths`."""
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
    """Return `places`, `shared`, `uses` and `offsets` of `pack_batch`."""
    flat = inside.nonzero()[:, 0]
    order = slots[flat].sort(stable=True)
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
