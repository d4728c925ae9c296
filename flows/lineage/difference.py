"""The smallest set of inputs in which two artifacts differ.

Two lineages are compared from the artifacts down. Two nodes with the same hash are equal, with all
their inputs. For other nodes the parameters, code and data of their stages are compared, and then
their input artifacts. The result holds only parameters, rows of data, sources, code and base
models, and artifacts that have no counterpart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.lineage import parameters
from flows.lineage.ancestry import Lineage, Node, primary
from flows.lineage.named import Named
from flows.lineage.parameters import NOTHING
from flows.lineage.problem import refuse
from flows.lineage.verification.verify import verify
from flows.versioning.objects import Objects
from flows.versioning.snapshot import leaves
from lori_core.core.errors import InputError
from lori_core.models.base_identity import BaseIdentity, Match, differing, match

#: The most rows of data that are listed; further rows are counted.
ROWS_NAMED = 5


@dataclass(frozen=True)
class Difference:
    """One input in which two artifacts differ.

    Attributes:
        kind: `parameter`, `data`, `source`, `code`, `base`, `command`, `precision` or `artifact`.
        name: the parameter, file or row.
        first: its value for the first artifact.
        second: its value for the second artifact.
    """

    kind: str
    name: str
    first: str
    second: str

    def __str__(self) -> str:
        """Return the difference as one line."""
        return f"{self.kind:9} {self.name}: {self.first} -> {self.second}"

    def as_dict(self) -> dict[str, str]:
        """Return the difference for JSON."""
        return {n: getattr(self, n) for n in ("kind", "name", "first", "second")}


def diff(first: Named, second: Named) -> list[Difference]:
    """Return the inputs that differ, each once; empty if the two have the same bytes.

    Args:
        first: an artifact, or a whole snapshot.
        second: likewise; a snapshot stands for the artifact of the same path.

    Raises:
        InputError: a snapshot does not have the artifact.
        DataError: files here differ from what was recorded; the message names them.
    """
    if first.path is None and second.path is None:
        return _Comparison(first, second).of_snapshots()
    path, other = first.path or second.path, second.path or first.path
    sides = Named(first.snapshot, path), Named(second.snapshot, other)
    return _Comparison(*sides).of_artifacts()


class _Comparison:
    """Two lineages, and the differences found so far."""

    def __init__(self, first: Named, second: Named) -> None:
        self.sides = (first, second)
        self.objects = (Objects(first.snapshot.workspace), Objects(second.snapshot.workspace))
        self.differences: dict[Difference, None] = {}
        #: How many differences were added, with repeated ones.
        self.added = 0
        self.compared: set[tuple[str, str]] = set()

    def of_snapshots(self) -> list[Difference]:
        names = [
            {primary(stage) for stage in side.snapshot.stages.values() if stage.outs}
            for side in self.sides
        ]
        shared = sorted(names[0] & names[1])
        self._load([shared, shared])
        for name in shared:
            self._pair(name, name)
        for name in sorted(names[0] ^ names[1]):
            values = (name, NOTHING) if name in names[0] else (NOTHING, name)
            self._add("artifact", name, *values)
        return list(self.differences)

    def of_artifacts(self) -> list[Difference]:
        first, second = str(self.sides[0].path), str(self.sides[1].path)
        for side, path in zip(self.sides, (first, second), strict=True):
            if path not in side.snapshot.producers and not self._is_data(side, path):
                raise InputError(f"{path}: {side.snapshot.label} has no such artifact")
        self._load([[first], [second]])
        self._pair(first, second)
        return list(self.differences)

    @staticmethod
    def _is_data(side: Named, path: str) -> bool:
        data = side.snapshot.data
        return data is not None and (path == data.path or path.startswith(f"{data.path}/"))

    def _load(self, targets: Sequence[Sequence[str]]) -> None:
        self.lineages = [
            Lineage(side.snapshot, objects, names)
            for side, objects, names in zip(self.sides, self.objects, targets, strict=True)
        ]
        for lineage in self.lineages:
            if lineage.snapshot.here:
                damaged = [problem for problem in verify(lineage) if not problem.stale]
                what = "cannot be compared: files differ from what was recorded"
                refuse(damaged, f"{lineage.snapshot.label}: {what}")

    def _add(self, kind: str, name: str, first: Any, second: Any) -> None:
        self.added += 1
        self.differences.setdefault(Difference(kind, name, _short(first), _short(second)))

    def _pair(self, first: str, second: str) -> None:
        if (first, second) in self.compared:
            return
        self.compared.add((first, second))
        one, two = self.lineages[0].nodes[first], self.lineages[1].nodes[second]
        if one.entry.md5 == two.entry.md5 and one.entry.md5:
            return
        if one.kind == "data" and two.kind == "data":
            self._data(one, two)
            return
        before = self.added
        self._own_inputs(one, two)
        for left, right in _paired(one, two):
            if left is None or right is None:
                self._add("artifact", left or right or "", left or NOTHING, right or NOTHING)
            else:
                self._pair(left, right)
        if self.added == before and not self._inputs_differ(one, two):
            self._add("artifact", first, one.entry.md5, two.entry.md5)

    def _inputs_differ(self, one: Node, two: Node) -> bool:
        """Return whether an input artifact differs; the reason was then added before."""
        return any(
            left and right and self._hash(0, left) != self._hash(1, right)
            for left, right in _paired(one, two)
        )

    def _hash(self, side: int, name: str) -> str:
        return self.lineages[side].nodes[name].entry.md5

    def _own_inputs(self, one: Node, two: Node) -> None:
        for name, left, right in parameters.differing(one, two):
            self._add("parameter", name, left, right)
        own, other = _content_of_key(one, "code"), _content_of_key(two, "code")
        for name in sorted({*one.code, *two.code, *own, *other}):
            left = own.get(name) or one.code.get(name, NOTHING)
            right = other.get(name) or two.code.get(name, NOTHING)
            comparable = (name in own) == (name in other)
            if left != right and (comparable or NOTHING not in (left, right)):
                self._add("code", name, left, right)
        if one.stage and two.stage and _command(one) != _command(two):
            self._add("command", one.name, one.stage.command, two.stage.command)
        computed = [_content_of_key(node, "dtype") for node in (one, two)]
        requested = [dict(leaves(node.params)).get("model.dtype") for node in (one, two)]
        if all(computed) and computed[0] != computed[1] and requested[0] == requested[1]:
            self._add("precision", "computed in", *computed)
        self._base(one, two)

    def _base(self, one: Node, two: Node) -> None:
        """Compare the base models by content, not by name."""
        left, right = (
            BaseIdentity.of(node.metadata.facts["base_identity"], node.name)
            if node.metadata and "base_identity" in node.metadata.facts
            else None
            for node in (one, two)
        )
        if left and right and match(left, right) is Match.DIFFERENT:
            what = differing(left, right)
            parts = ("settings", "config") if what == "config" else ("tensors", "weights")
            digests = [getattr(b, parts[0]) or getattr(b, parts[1]) for b in (left, right)]
            self._add("base", f"{left.name}, {what}", *digests)

    def _data(self, one: Node, two: Node) -> None:
        """Compare data by file and row, and the sources if the manifests differ."""
        files = [self._files(index, node) for index, node in enumerate((one, two))]
        names = sorted({*files[0], *files[1]})
        changed = [n for n in names if files[0].get(n) != files[1].get(n)]
        for name in changed:
            if name.endswith("manifest.json"):
                self._sources()
            else:
                self._rows(name, files[0].get(name), files[1].get(name))
        if not changed:
            self._add("data", one.name, one.entry.md5, two.entry.md5)

    def _files(self, side: int, node: Node) -> dict[str, str]:
        """Return the hash of each file of a data node, by its path in the workspace."""
        listed = self.objects[side].files(node.entry.md5)
        if listed is None:
            listed = self.lineages[side].pinned.below(node.name) or {}
        return {f"{node.name}/{n}".rstrip("/"): md5 for n, md5 in listed.items()}

    def _rows(self, name: str, first: str | None, second: str | None) -> None:
        rows = [self._read(index, name, md5) for index, md5 in enumerate((first, second))]
        if rows[0] is None or rows[1] is None:
            self._add("data", name, first or NOTHING, second or NOTHING)
            return
        only = [
            {key: text for key, text in rows[i].items() if key not in rows[1 - i]}  # type: ignore[union-attr, operator]
            for i in (0, 1)
        ]
        pairs = list(_paired_rows(list(only[0].values()), list(only[1].values())))
        for left, right in pairs[:ROWS_NAMED]:
            self._add("data", f"{name}, one row", left or NOTHING, right or NOTHING)
        if len(pairs) > ROWS_NAMED:
            rest = f"{len(pairs) - ROWS_NAMED} more rows"
            self._add("data", f"{name}, {rest}", len(only[0]), len(only[1]))
        if not pairs:
            self._add("data", f"{name}, order of rows", first, second)

    def _read(self, side: int, name: str, md5: str | None) -> dict[str, str] | None:
        """Return line -> text with its number for a file of data; None if its bytes are gone."""
        if md5 is None:
            return {}
        content = self.objects[side].content(md5)
        pinned = self.lineages[side].pinned
        if content is None and (pinned.listing or {}).get(pinned.inside(name)) == md5:
            content = pinned.read(pinned.inside(name))
        if content is None:
            return None
        lines = content.decode("utf-8", "replace").splitlines()
        return {line: f"line {number}: {_shown(line)}" for number, line in enumerate(lines, 1)}

    def _sources(self) -> None:
        """Compare the sources of the data: name, revision, licence and the like."""
        sides = [_source_facts(lineage) for lineage in self.lineages]
        for name in sorted({*sides[0], *sides[1]}):
            first, second = sides[0].get(name, NOTHING), sides[1].get(name, NOTHING)
            if first != second:
                self._add("source", name, first, second)


#: The keys of a source in the manifest that are inputs; the other keys follow from them.
_SOURCE_KEYS = ("kind", "name", "config", "revision", "path", "license", "limit", "format")


def _source_facts(lineage: Lineage) -> dict[str, str]:
    return {
        f"tasks.{task}.source[{index}].{key}": json.dumps(source[key], sort_keys=True)
        for task, entry in lineage.pinned.manifest.get("tasks", {}).items()
        for index, source in enumerate(entry["sources"])
        for key in _SOURCE_KEYS
        if key in source
    }


def _content_of_key(node: Node, part: str) -> Any:
    """Return one part of the values that an artifact's content key digests; empty without it."""
    return (node.metadata.depends.get(part) if node.metadata else None) or {}


def _command(node: Node) -> str:
    """Return a stage's command without its task, so that stages of two tasks compare equal."""
    return " ".join((node.stage.command if node.stage else "").split()[:3])


def _paired(one: Node, two: Node) -> Iterator[tuple[str | None, str | None]]:
    """Pair the inputs of two nodes: first those of equal names, then those of similar paths."""
    left = [name for name in one.inputs if name not in two.inputs]
    right = [name for name in two.inputs if name not in one.inputs]
    yield from ((name, name) for name in one.inputs if name in two.inputs)
    for name in left:
        match = next((other for other in right if _shape(other) == _shape(name)), None)
        if match is not None:
            right.remove(match)
        yield name, match
    yield from ((None, name) for name in right)


def _shape(name: str) -> tuple[str, str]:
    return name.split("/")[0], name.rsplit("/", 1)[-1]


def _paired_rows(
    first: Sequence[str], second: Sequence[str]
) -> Iterator[tuple[str | None, str | None]]:
    for index in range(max(len(first), len(second))):
        yield (
            first[index] if index < len(first) else None,
            second[index] if index < len(second) else None,
        )


def _shown(line: str) -> str:
    """Return a row of data as its prompt and target, for people."""
    try:
        row = json.loads(line)
        return f"{row['prompt']!r} = {row['target']!r}"
    except (ValueError, KeyError, TypeError):
        return line


def _short(value: Any, limit: int = 160) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
