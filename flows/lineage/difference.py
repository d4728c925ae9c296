"""The smallest set of inputs in which two artifacts differ.

Two lineages are walked together from the artifacts down. Where two nodes have one hash, nothing
below them matters. Else their stages' own inputs are compared, and the inputs that are artifacts
are walked on. What is left are leaves: parameters, rows of data, sources, code, the base model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.lineage.ancestry import Lineage, Node, primary
from flows.lineage.named import Named
from flows.lineage.problem import refuse
from flows.lineage.verification.verify import verify
from flows.versioning.objects import Objects
from flows.versioning.snapshot import leaves
from lori_core.core.errors import InputError
from lori_core.models.base_identity import BaseIdentity, Match, differing, match

#: Rows of data named one by one; more are counted.
ROWS_NAMED = 5
NOTHING = "(not there)"


@dataclass(frozen=True)
class Difference:
    """One input in which two artifacts differ.

    Attributes:
        kind: `parameter`, `data`, `source`, `code`, `base`, `command` or `artifact`.
        name: the parameter, the file, the row.
        first: what the first was made with.
        second: what the second was made with.
    """

    kind: str
    name: str
    first: str
    second: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.kind:9} {self.name}: {self.first} -> {self.second}"

    def as_dict(self) -> dict[str, str]:
        """Return it for machines."""
        return {n: getattr(self, n) for n in ("kind", "name", "first", "second")}


def diff(first: Named, second: Named) -> list[Difference]:
    """Return the inputs that differ, each once; empty where the two are the same bytes.

    Raises:
        InputError: one names an artifact, the other a whole state.
        DataError: one of them is not what was made any more, naming what.
    """
    if first.path is None and second.path is None:
        return _Walk(first, second).of_states()
    path, other = first.path or second.path, second.path or first.path
    return _Walk(Named(first.state, path), Named(second.state, other)).of_artifacts()


class _Walk:
    """Two lineages, and the differences found so far."""

    def __init__(self, first: Named, second: Named) -> None:
        self.sides = (first, second)
        self.objects = (Objects(first.state.workspace), Objects(second.state.workspace))
        self.found: dict[Difference, None] = {}
        #: Differences met so far, those found before among them.
        self.named = 0
        self.seen: set[tuple[str, str]] = set()

    def of_states(self) -> list[Difference]:
        names = [
            {primary(stage) for stage in side.state.stages.values() if stage.outs}
            for side in self.sides
        ]
        shared = sorted(names[0] & names[1])
        self._load([shared, shared])
        for name in shared:
            self._pair(name, name)
        for name in sorted(names[0] ^ names[1]):
            there = (name, NOTHING) if name in names[0] else (NOTHING, name)
            self._add("artifact", name, *there)
        return list(self.found)

    def of_artifacts(self) -> list[Difference]:
        first, second = str(self.sides[0].path), str(self.sides[1].path)
        for side, path in zip(self.sides, (first, second), strict=True):
            if path not in side.state.makers and not self._is_data(side, path):
                raise InputError(f"{path}: {side.state.label} has no such artifact")
        self._load([[first], [second]])
        self._pair(first, second)
        return list(self.found)

    @staticmethod
    def _is_data(side: Named, path: str) -> bool:
        data = side.state.data
        return data is not None and (path == data.path or path.startswith(f"{data.path}/"))

    def _load(self, targets: Sequence[Sequence[str]]) -> None:
        self.lineages = [
            Lineage(side.state, objects, names)
            for side, objects, names in zip(self.sides, self.objects, targets, strict=True)
        ]
        for lineage in self.lineages:
            if lineage.snapshot.here:
                damaged = [problem for problem in verify(lineage) if not problem.stale]
                refuse(damaged, f"{lineage.snapshot.label}: not what was made, so not compared")

    def _add(self, kind: str, name: str, first: Any, second: Any) -> None:
        self.named += 1
        self.found.setdefault(Difference(kind, name, _short(first), _short(second)))

    def _pair(self, first: str, second: str) -> None:
        if (first, second) in self.seen:
            return
        self.seen.add((first, second))
        one, two = self.lineages[0].nodes[first], self.lineages[1].nodes[second]
        if one.entry.md5 == two.entry.md5 and one.entry.md5:
            return
        if one.kind == "data" and two.kind == "data":
            self._data(one, two)
            return
        before = self.named
        self._own_inputs(one, two)
        for left, right in _paired(one, two):
            if left is None or right is None:
                self._add("artifact", left or right or "", left or NOTHING, right or NOTHING)
            else:
                self._pair(left, right)
        if self.named == before and not self._explained_below(one, two):
            self._add("artifact", first, one.entry.md5, two.entry.md5)

    def _explained_below(self, one: Node, two: Node) -> bool:
        """Whether an input of two nodes differs, so that they differ for a reason named before."""
        return any(
            left and right and self._hash(0, left) != self._hash(1, right)
            for left, right in _paired(one, two)
        )

    def _hash(self, side: int, name: str) -> str:
        return self.lineages[side].nodes[name].entry.md5

    def _own_inputs(self, one: Node, two: Node) -> None:
        first, second = dict(leaves(one.params)), dict(leaves(two.params))
        for name in sorted({*first, *second}):
            left, right = _in_force(first, name), _in_force(second, name)
            if left != right:
                self._add("parameter", name, left, right)
        for name in sorted({*one.code, *two.code, *_said(one, "code"), *_said(two, "code")}):
            left = _said(one, "code").get(name) or one.code.get(name, NOTHING)
            right = _said(two, "code").get(name) or two.code.get(name, NOTHING)
            both_say = (name in _said(one, "code")) == (name in _said(two, "code"))
            if left != right and (both_say or NOTHING not in (left, right)):
                self._add("code", name, left, right)
        if one.stage and two.stage and _command(one) != _command(two):
            self._add("command", one.name, one.stage.command, two.stage.command)
        computed = [_said(node, "dtype") for node in (one, two)]
        asked = [params.get("model.dtype") for params in (first, second)]
        if all(computed) and computed[0] != computed[1] and asked[0] == asked[1]:
            self._add("precision", "computed in", *computed)
        self._base(one, two)

    def _base(self, one: Node, two: Node) -> None:
        """Compare the base models by their content, whatever they are called."""
        left, right = (
            BaseIdentity.of(node.origin.facts["base_identity"], node.name)
            if node.origin and "base_identity" in node.origin.facts
            else None
            for node in (one, two)
        )
        if left and right and match(left, right) is Match.DIFFERENT:
            what = differing(left, right)
            parts = ("settings", "config") if what == "config" else ("tensors", "weights")
            digests = [getattr(b, parts[0]) or getattr(b, parts[1]) for b in (left, right)]
            self._add("base", f"{left.name}, {what}", *digests)

    def _data(self, one: Node, two: Node) -> None:
        """Compare data by file and by row; sources where only these differ."""
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
        """Return the file hashes of a node of data by the file's path in the workspace."""
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
        """Return the lines of a file of data, each with its place; None where they are gone."""
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
        """Compare where the data came from: name, revision, licence; not what follows from it."""
        sides = [_source_facts(lineage) for lineage in self.lineages]
        for name in sorted({*sides[0], *sides[1]}):
            first, second = sides[0].get(name, NOTHING), sides[1].get(name, NOTHING)
            if first != second:
                self._add("source", name, first, second)


#: What of a source in the manifest is an input, not a consequence of one.
_SOURCE_KEYS = ("kind", "name", "config", "revision", "path", "license", "limit", "format")


def _source_facts(lineage: Lineage) -> dict[str, str]:
    return {
        f"tasks.{task}.source[{index}].{key}": json.dumps(source[key], sort_keys=True)
        for task, entry in lineage.pinned.manifest.get("tasks", {}).items()
        for index, source in enumerate(entry["sources"])
        for key in _SOURCE_KEYS
        if key in source
    }


def _in_force(params: Mapping[str, Any], name: str) -> Any:
    """Return a parameter; where a task does not override `training`, what stands there."""
    usual = f"training.{name.rpartition('.')[2]}" if name.count(".") > 1 else name
    return params.get(name, params.get(usual, NOTHING))


def _said(node: Node, what: str) -> Any:
    """Return a part of what an artifact's content key is the digest of; empty without it."""
    return (node.origin.depends.get(what) if node.origin else None) or {}


def _command(node: Node) -> str:
    """Return a stage's command without the task it is for: two tasks' stages are alike."""
    return " ".join((node.stage.command if node.stage else "").split()[:3])


def _paired(one: Node, two: Node) -> Iterator[tuple[str | None, str | None]]:
    """Pair the inputs of two nodes: those of one name, then in order those of one kind of path."""
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
    """Return a row of data as people tell it: its prompt and target."""
    try:
        row = json.loads(line)
        return f"{row['prompt']!r} = {row['target']!r}"
    except (ValueError, KeyError, TypeError):
        return line


def _short(value: Any, limit: int = 160) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
