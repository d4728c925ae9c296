"""The way back from an artifact to its data: the graph that `dvc.lock` recorded, read from it.

Each node is something with a hash: an adapter, a mask, an evaluation, a file of data. What an
artifact says of itself (`lori_core.adapters.artifact_metadata`) is put beside what DVC recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from flows.lineage.measured import measuring
from flows.lineage.pinned import Pinned
from flows.lineage.problem import Problem
from flows.versioning.dvc.lock_file import MEND_LOCK, MEND_PIN, PINNED, Entry, StageEntry
from flows.versioning.objects import Objects
from flows.versioning.snapshot import DATA, LOCK, Snapshot
from lori_core.adapters import artifact_metadata as origin
from lori_core.adapters.artifact_metadata import ArtifactMetadata
from lori_core.core.errors import AdapterError, InputError, nearest

EVALUATIONS = "artifacts/evaluations"


@dataclass
class Node:
    """One artifact, or one file or folder of data.

    Attributes:
        name: its path in the workspace.
        kind: `adapter`, `merged adapter`, `mask`, `evaluation`, `report`, `metrics`, `data`, ….
        entry: what DVC recorded of it.
        stage: what made it; None for data.
        origin: what it says of itself, where that can be read.
        inputs: the names of the nodes it was made from.
        code: the source files it was computed by, with their MD5.
        presence: `cache`, `remote` or `gone`.
        here: whether its files are in the workspace.
        facts: more for people: sources and licence of data, scores, who made it where.
    """

    name: str
    kind: str
    entry: Entry
    stage: StageEntry | None = None
    origin: ArtifactMetadata | None = None
    inputs: list[str] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)
    presence: str = ""
    here: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The content key it holds; empty where it has none."""
        return self.origin.key if self.origin else ""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that its stage read."""
        return dict(self.stage.params) if self.stage else {}


class Lineage:
    """The nodes that artifacts were made from, themselves first."""

    def __init__(
        self,
        snapshot: Snapshot,
        objects: Objects,
        targets: Sequence[str],
        pinned: Pinned | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.objects = objects
        self.targets = tuple(targets)
        self.pinned = pinned or Pinned(snapshot, objects)
        self.nodes: dict[str, Node] = {}
        #: What was found not to fit while reading; `verify` finds it, too, and more.
        self.doubts: list[Problem] = []
        self._made: dict[str, Node] = {}
        for target in targets:
            self._add(target)

    def _add(self, name: str) -> None:
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in self.nodes:
                node = self._node(current)
                self.nodes[current] = node
                waiting.extend(reversed(node.inputs))

    def _node(self, name: str) -> Node:
        stage = self.snapshot.makers.get(name)
        node = self._bare(name) if stage else self._data(name)
        node.here = self._is_here(name)
        if stage:
            for dep in stage.deps.values():
                self._take(node, dep)
            self._keep_parents(node)
        return node

    def _is_here(self, name: str) -> bool:
        return self.snapshot.here and (self.snapshot.workspace / name).exists()

    def _bare(self, name: str) -> Node:
        """Return an output's node without its inputs, made once."""
        if name not in self._made:
            stage = self.snapshot.makers[name]
            entry = stage.outs[name]
            own = read_origin(self.snapshot, self.objects, entry)
            self._made[name] = Node(name, _kind(name, own), entry, stage, own)
        return self._made[name]

    def with_measured(self, also: Iterable[str] = ()) -> Lineage:
        """Return the lineage with what was measured of its nodes, and what that was made from."""
        measured = [
            primary(stage)
            for node in self.nodes.values()
            if node.stage
            for stage in measuring(self.snapshot, node.name, node.entry.md5)
        ]
        targets = dict.fromkeys([*self.targets, *also, *measured])
        return Lineage(self.snapshot, self.objects, list(targets), self.pinned)

    def with_siblings(self) -> dict[str, Node]:
        """Return the nodes, and what their stages made beside them, like metrics."""
        found = dict(self.nodes)
        for node in self.nodes.values():
            for name in node.stage.outs if node.stage else ():
                if name not in found:
                    found[name] = self._bare(name)
                    found[name].here = self._is_here(name)
        return found

    def _take(self, node: Node, dep: Entry) -> None:
        """Sort one dependency of a stage: outputs and data are inputs, the rest is code."""
        if self.pinned.holds(dep.path):
            node.inputs.append(dep.path)
            return
        found = [primary(self.snapshot.makers[path]) for path in self._outs_of(dep.path)]
        if found:
            node.inputs.extend(name for name in dict.fromkeys(found) if name not in node.inputs)
        else:
            node.code[dep.path] = dep.md5

    def _outs_of(self, path: str) -> Iterator[str]:
        """Yield the outputs that a dependency is, or that lie in the folder it is."""
        inside = path.rstrip("/") + "/"
        return (out for out in self.snapshot.makers if out == path or out.startswith(inside))

    def _keep_parents(self, node: Node) -> None:
        """Of the outputs a merge's stage watches, keep those that its recipe names."""
        if node.origin is None or node.origin.kind != "merged adapter":
            return
        keys = {self._bare(n).key: n for n in node.inputs if n in self.snapshot.makers}
        if set(node.origin.parents) <= keys.keys():
            node.inputs = [keys[key] for key in node.origin.parents]

    def _data(self, name: str) -> Node:
        entry = self._data_entry(name)
        node = Node(name, "data", entry)
        node.facts = self._sources(name)
        return node

    def _data_entry(self, name: str) -> Entry:
        """Return what the stages that read a file of data recorded of it."""
        for stage in self.snapshot.stages.values():
            if name in stage.deps:
                return stage.deps[name]
        return Entry(name, self.pinned.hash_below(name) or "")

    def _sources(self, name: str) -> dict[str, Any]:
        """Return sources with revision and licence, and counts, as the manifest has them."""
        parts = PurePosixPath(name).parts
        tasks = self.pinned.manifest.get("tasks", {})
        if len(parts) < 2:
            return {"tasks": sorted(tasks)}
        found = tasks.get(parts[1])
        if found is None:
            return {}
        split = PurePosixPath(name).stem
        rows = found["splits"].get(split, {}).get("count")
        used = [
            s for s in found["sources"] if split != "train" or "train" in s.get("gives", [split])
        ]
        return {"rows": rows, "sources": [source_text(source) for source in used]}

    def mark(self) -> None:
        """Find out for each node where its bytes are."""
        said = self.objects.presence(n.entry.md5 for n in self.nodes.values() if n.entry.md5)
        for node in self.nodes.values():
            node.presence = said.get(node.entry.md5, "gone")
            if node.presence == "gone" and self._in_pinned(node):
                node.presence = "cache"

    def _in_pinned(self, node: Node) -> bool:
        """A folder of data that a stage recorded may be there file by file, under `data.dvc`."""
        pinned = self.pinned
        return node.name == pinned.folder and pinned.md5 == node.entry.md5 and bool(pinned.listing)


def source_text(source: dict[str, Any]) -> str:
    """Return one source of data in a line: kind, name, revision, licence."""
    named = source.get("name") or source.get("path") or ""
    revision = f" at {source['revision']}" if source.get("revision") else ""
    licence = source.get("license") or "not stated here"
    return f"{source.get('kind', '')} {named}{revision} (licence: {licence})"


def primary(stage: StageEntry) -> str:
    """Return the output that stands for a stage: the artifact, not the metrics beside it."""
    outs = list(stage.outs)
    return next((out for out in outs if not out.startswith("metrics/")), outs[0])


def find(snapshot: Snapshot, name: str) -> str:
    """Return the output or file of data that a path names: itself, or what it lies in.

    Raises:
        InputError: the state has nothing of that name; the nearest names are given.
    """
    wanted = PurePosixPath(name)
    data = snapshot.data
    known = [*snapshot.makers, *([data.path] if data else [])]
    for path in (wanted, *wanted.parents):
        if str(path) in snapshot.makers:
            return str(path)
        if data is not None and str(path) == data.path:
            return str(wanted)
    if name in snapshot.stages:
        return primary(snapshot.stages[name])
    if data is None and wanted.parts[:1] == (PINNED,):
        raise InputError(f"{DATA}: missing: nothing says which data is meant; {MEND_PIN}")
    if snapshot.here and (snapshot.workspace / wanted).exists():
        raise InputError(
            f"{name}: is here, but {LOCK} records no stage that made it: the stage has not ended "
            f"(lori run), it is none of the pipeline's, or {LOCK} is not whole; {MEND_LOCK}"
        )
    raise InputError(
        f"{name}: {snapshot.label} has no such artifact{nearest(name, [*known, *snapshot.stages])}"
        f" (dvc.lock knows {len(known)}; lori plan lists the stages)"
    )


def read_origin(snapshot: Snapshot, objects: Objects, entry: Entry) -> ArtifactMetadata | None:
    """Return what an artifact says of itself; None for other outputs, and for what is gone."""
    readers: dict[str, Callable[[bytes, str], ArtifactMetadata]] = {}
    if entry.path.endswith(".safetensors"):
        readers = {"": origin.of_mask}
    elif entry.is_folder:
        readers = {file: read for file, (read, _) in origin.FOLDERS.items()}
    for inside, read in readers.items():
        content = _content(snapshot, objects, entry, inside)
        if content is not None:
            where = f"{entry.path}/{inside}".rstrip("/")
            try:
                return read(content, where)
            except AdapterError:
                return _from_cache(objects, entry, inside, read, where)
    return None


def _content(snapshot: Snapshot, objects: Objects, entry: Entry, inside: str) -> bytes | None:
    path = snapshot.workspace / entry.path / inside if inside else snapshot.workspace / entry.path
    if snapshot.here and path.is_file():
        return path.read_bytes()
    if snapshot.here and inside and path.parent.is_dir():
        return None  # a folder of something else
    md5 = (objects.files(entry.md5) or {}).get(inside)
    return objects.content(md5) if md5 else None


def _from_cache(
    objects: Objects,
    entry: Entry,
    inside: str,
    read: Callable[[bytes, str], ArtifactMetadata],
    where: str,
) -> ArtifactMetadata | None:
    """Return what an artifact says in the cache, where the file at hand is damaged."""
    md5 = (objects.files(entry.md5) or {}).get(inside)
    content = objects.content(md5) if md5 else None
    try:
        return None if content is None else read(content, where)
    except AdapterError:
        return None


def _kind(name: str, own: ArtifactMetadata | None) -> str:
    if own is not None:
        return own.kind
    if name.startswith(f"{EVALUATIONS}/"):
        return "evaluation"
    first = Path(name).parts[0]
    return first if first in ("report", "metrics") else "artifact"
