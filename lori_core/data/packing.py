"""A batch without padding, in which a beginning that several examples share is computed once.

In a causal model a token's states depend on the tokens before it alone. So the batch is a tree:
each node is a token after its whole past, and examples with one beginning share those nodes. The
nodes in a row are what the linear maps see; attention lays each example out again
(`training.kernels.packed_attention`). The losses are those of the padded batch, example by example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lori_core.data.prompts import Encoded

#: Attention pads examples to the longest of their group. One that is shorter than this share of it
#: begins the next group, once this has `GROUP` examples: smaller ones cost more calls than padding.
NARROWER, GROUP = 0.9, 4


def pack_batch(batch: Sequence[Encoded], share: bool = True) -> dict[str, Any]:
    """Lay a batch out as the nodes of its tree.

    Args:
        batch: the examples.
        share: whether equal beginnings are one; with dropout each example needs its own.

    Returns:
        int64 tensors, for T nodes, B examples, N places and S target tokens:
        `input_ids`, `position_ids`: [1, T];
        `slots`: [N], the node at each place: groups of examples of like length, each group's
        [examples, longest] flattened; 0 after an example's end, where causal attention from inside
        never looks;
        `places`: [T], a place that holds this node;
        `shared`, `uses`, `offsets`: the nodes in more than one place, all places of the first, then
        of the second, …, and where each one's begin;
        `predicting`: [S], the node before each target token; `targets`: [S]; `counts`: [B], how
        many targets each example has.
        And `groups`: (examples, longest) of each group.
    """
    children: dict[tuple[int, int], int] = {}
    ids: list[int] = []
    depths: list[int] = []
    paths = []
    for row, item in enumerate(batch):
        tokens = item.prompt + item.target
        paths.append(_path(tokens, children, ids, depths, root=-1 if share else -1 - row))
    first = [max(len(item.prompt), 1) for item in batch]  # nothing predicts the first token of all
    pairs = list(zip(batch, paths, first, strict=True))
    targets = [token for item, _, n in pairs for token in (item.prompt + item.target)[n:]]
    slots, inside, groups = _lay_out(paths)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([depths]),
        "slots": slots,
        **_places(slots, inside, len(ids)),
        "predicting": torch.tensor([node for _, p, n in pairs for node in p[n - 1 : -1]]),
        "targets": torch.tensor(targets),
        "counts": torch.tensor([len(path) - n for _, path, n in pairs]),
        "groups": groups,
    }


def _lay_out(paths: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, tuple[tuple[int, int], ...]]:
    """Return the node at each place, which places are inside an example, and the groups."""
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
