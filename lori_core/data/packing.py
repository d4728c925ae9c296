"""Packed batches: no padding, and a prefix that several examples share is computed once.

In a causal model, the states of a token depend only on the tokens before it. So a batch forms a
prefix tree: each node is a token together with all tokens before it, and examples with a common
prefix share its nodes. Linear layers process each node once; attention copies the nodes back to
the places of each example (`training.kernels.packed_attention`). The loss of each example equals
that of a padded batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lori_core.data.prompts import Encoded

#: Attention pads each example to the longest of its group. A new group starts when a group has
#: `GROUP` examples and the next one is shorter than `NARROWER` times its longest; smaller groups
#: would cost more in calls than they save in padding.
NARROWER, GROUP = 0.9, 4

Ids = NDArray[np.int64]


def pack_batch(
    batch: Sequence[Encoded],
    share: bool = True,
    *,
    padded: bool = True,
    least_shared: float = 0.0,
) -> dict[str, Any]:
    """Return a batch as the nodes of its prefix tree.

    Args:
        batch: the examples.
        share: whether examples share the nodes of a common prefix; with dropout they must not.
        padded: whether places are groups of examples that are padded to one length; otherwise they
            are the examples one after another, for variable-length attention.
        least_shared: the least share of all tokens that a common prefix must save; if it saves
            less, no nodes are shared.

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
        And `groups`: (examples, longest) of each group. Without padding, each example is a group,
        and `starts`, int32 [B + 1], holds the first place of each example and N.
    """
    rows = [np.array(item.prompt + item.target, dtype=np.int64) for item in batch]
    tree = _shared_tree(rows) if share else _separate(rows)
    total = sum(len(row) for row in rows)
    if len(tree.ids) > (1 - least_shared) * total:
        tree = _separate(rows)
    # No node precedes the first token of a row, so it is never a target.
    learned = [_learned(item) for item in batch]
    triples = list(zip(rows, tree.paths, learned, strict=True))
    slots, inside, groups = _lay_out(tree.paths) if padded else _one_after_another(tree.paths)
    packed: dict[str, Any] = {
        "input_ids": torch.from_numpy(tree.ids)[None],
        "position_ids": torch.from_numpy(tree.depths)[None],
        "slots": torch.from_numpy(slots),
        **_places(slots, inside, len(tree.ids)),
        "predicting": torch.from_numpy(np.concatenate([path[at - 1] for _, path, at in triples])),
        "targets": torch.from_numpy(np.concatenate([row[at] for row, _, at in triples])),
        "counts": torch.tensor([len(at) for at in learned]),
        "groups": groups,
    }
    if not padded:
        ends = np.cumsum([0, *(len(row) for row in rows)])
        packed["starts"] = torch.from_numpy(ends.astype(np.int32))
    return packed


def nodes_of(packed: Mapping[str, Any], lengths: Sequence[int]) -> list[Tensor]:
    """Return the nodes of each example of a batch whose places are padded.

    Args:
        packed: the batch, from `pack_batch`.
        lengths: the number of tokens of each example.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    longest = [length for count, length in packed["groups"] for _ in range(count)]
    nodes = {}
    for row, places in zip(order, packed["slots"].split(longest), strict=True):
        nodes[row] = places[: lengths[row]]
    return [nodes[row] for row in range(len(lengths))]


def _learned(item: Encoded) -> Ids:
    """Return the places of an example's learned tokens; none of them is the first."""
    start = len(item.prompt)
    places = np.arange(max(start, 1), len(item))
    if item.unlearned:
        places = places[~np.isin(places - start, list(item.unlearned))]
    return places


@dataclass(frozen=True)
class _Tree:
    """A prefix tree: token and depth of each node, [T], and the nodes of each example."""

    ids: Ids
    depths: Ids
    paths: list[Ids]


def _separate(rows: Sequence[Ids]) -> _Tree:
    """Return the tree in which no two examples share a node."""
    ends = np.cumsum([len(row) for row in rows])
    paths = [np.arange(end - len(row), end) for row, end in zip(rows, ends, strict=True)]
    depths = np.concatenate([np.arange(len(row)) for row in rows])
    return _Tree(np.concatenate(rows), depths, paths)


def _shared_tree(rows: Sequence[Ids]) -> _Tree:
    """Return the prefix tree; nodes are numbered by example, then by depth.

    The longest prefix that an example shares with any earlier one is the longest that it shares
    with its neighbours among them in lexicographic order.
    """
    order: list[tuple[bytes, int]] = []
    ids: list[Ids] = []
    depths: list[Ids] = []
    paths: list[Ids] = []
    known = 0
    for number, row in enumerate(rows):
        key = (row.astype(">i8").tobytes(), number)
        at = bisect_left(order, key)
        neighbours = [other for _, other in order[max(at - 1, 0) : at + 1]]
        common, other = max(((_common(row, rows[n]), n) for n in neighbours), default=(0, 0))
        start = paths[other][:common] if common else row[:0]
        new = len(row) - common
        paths.append(np.concatenate([start, np.arange(known, known + new)]))
        ids.append(row[common:])
        depths.append(np.arange(common, len(row)))
        known += new
        order.insert(at, key)
    return _Tree(np.concatenate(ids), np.concatenate(depths), paths)


def _common(row: Ids, other: Ids) -> int:
    """Return the length of the longest common prefix of two rows."""
    length = min(len(row), len(other))
    unequal = row[:length] != other[:length]
    first = int(unequal.argmax()) if length else 0
    return first if length and unequal[first] else length


def _lay_out(paths: Sequence[Ids]) -> tuple[Ids, Ids, tuple[tuple[int, int], ...]]:
    """Return each place's node, the places inside examples, and the groups' shapes."""
    groups: list[list[Ids]] = []
    for path in sorted(paths, key=len, reverse=True):
        if not groups or (len(groups[-1]) >= GROUP and len(path) < NARROWER * len(groups[-1][0])):
            groups.append([])
        groups[-1].append(path)
    shapes = tuple((len(group), len(group[0])) for group in groups)
    slots = np.zeros(sum(count * longest for count, longest in shapes), dtype=np.int64)
    inside = []
    start = 0
    for group in groups:
        for path in group:
            slots[start : start + len(path)] = path
            inside.append(np.arange(start, start + len(path)))
            start += len(group[0])
    return slots, np.concatenate(inside), shapes


def _one_after_another(paths: Sequence[Ids]) -> tuple[Ids, Ids, tuple[tuple[int, int], ...]]:
    """Return what `_lay_out` does, with one group for each example, in the order of the batch."""
    slots = np.concatenate(paths)
    return slots, np.arange(len(slots)), tuple((1, len(path)) for path in paths)


def _places(slots: Ids, inside: Ids, nodes: int) -> dict[str, Tensor]:
    """Return `places`, `shared`, `uses` and `offsets` of `pack_batch`."""
    used = slots[inside]
    order = np.argsort(used, kind="stable")
    at = inside[order]
    counts = np.bincount(used, minlength=nodes)
    starts = np.cumsum(counts) - counts
    several = counts > 1
    lengths = counts[several]
    places = {
        "places": at[starts],
        "shared": several.nonzero()[0],
        "uses": at[several[used[order]]],
        "offsets": np.cumsum(lengths) - lengths,
    }
    return {name: torch.from_numpy(values) for name, values in places.items()}
