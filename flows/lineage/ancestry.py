"""The lineage of an artifact: the graph of what it was made from, read from `dvc.lock`.

Each node is an output or a file of data with its hash: an adapter, a mask, an evaluation. A node
has DVC's record and the artifact's own metadata (`lori_core.adapters.artifact_metadata`).
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
from lori_core.adapters import artifact_metadata
from lori_core.adapters.artifact_metadata import ArtifactMetadata
from lori_core.core.errors import AdapterError, InputError, nearest

EVALUATIONS = "artifacts/evaluations"


@dataclass
class Node:
    """One artifact, or one file or folder of data.

    Attributes:
        name: its path in the workspace.
        kind: `adapter`, `merged adapter`, `mask`, `evaluation`, `report`, `metrics`, `data`, ….
        entry: its path and hash as DVC recorded them.
        stage: the stage that wrote it; None for data.
        metadata: the artifact's own metadata; None if it has none or they cannot be read.
        inputs: the names of the nodes it was made from.
        code: the source files of its stage, with their MD5.
        presence: where its recorded bytes are: `cache`, `remote` or `gone`.
        here: whether its files are in the workspace.
        facts: further facts for people: sources and licence of data, scores, the run that made it.
    """

    name: str
    kind: str
    entry: Entry
    stage: StageEntry | None = None
    metadata: ArtifactMetadata | None = None
    inputs: list[str] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)
    presence: str = ""
    here: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The content key in its metadata; empty without metadata."""
        return self.metadata.key if self.metadata else ""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that its stage read."""
        return dict(self.stage.params) if self.stage else {}


class Lineage:
    """The nodes of some artifacts and of everything they were made from.

    Args:
        snapshot: the snapshot whose `dvc.lock` is read.
        objects: the cache and remote with the recorded bytes.
        targets: the artifacts; their nodes come first.
        pinned: the data of the snapshot, if it was read before.
    """

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
        #: Problems found while reading; `verify` finds these and more.
        self.problems: list[Problem] = []
        self._outputs: dict[str, Node] = {}
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
        stage = self.snapshot.producers.get(name)
        node = self._bare(name) if stage else self._data(name)
        node.here = self._is_here(name)
        if stage:
            for dep in stage.deps.values():
                self._add_dependency(node, dep)
            self._drop_unused_parents(node)
        return node

    def inputs_of(self, name: str) -> list[Entry]:
        """Return the records of what an output was made from directly; add no nodes."""
        producers = self.snapshot.producers
        return [
            producers[source].outs[source] if source in producers else self._data_entry(source)
            for source in self._node(name).inputs
        ]

    def _is_here(self, name: str) -> bool:
        return self.snapshot.here and (self.snapshot.workspace / name).exists()

    def _bare(self, name: str) -> Node:
        """Return an output's node without its inputs, created once."""
        if name not in self._outputs:
            stage = self.snapshot.producers[name]
            entry = stage.outs[name]
            metadata = read_metadata(self.snapshot, self.objects, entry)
            self._outputs[name] = Node(name, _kind(name, metadata), entry, stage, metadata)
        return self._outputs[name]

    def with_measured(self, also: Iterable[str] = ()) -> Lineage:
        """Return the lineage with the evaluations of its nodes and the outputs `also` added."""
        measured = [
            primary(stage)
            for node in self.nodes.values()
            if node.stage
            for stage in measuring(self.snapshot, node.name, node.entry.md5)
        ]
        targets = dict.fromkeys([*self.targets, *also, *measured])
        return Lineage(self.snapshot, self.objects, list(targets), self.pinned)

    def with_siblings(self) -> dict[str, Node]:
        """Return the nodes by name, with their stages' other outputs, such as metrics."""
        nodes = dict(self.nodes)
        for node in self.nodes.values():
            for name in node.stage.outs if node.stage else ():
                if name not in nodes:
                    nodes[name] = self._bare(name)
                    nodes[name].here = self._is_here(name)
        return nodes

    def _add_dependency(self, node: Node, dep: Entry) -> None:
        """Add one dependency of a stage: outputs and data are inputs, everything else is code."""
        if self.pinned.holds(dep.path):
            node.inputs.append(dep.path)
            return
        outs = [primary(self.snapshot.producers[path]) for path in self._outs_of(dep.path)]
        if outs:
            node.inputs.extend(name for name in dict.fromkeys(outs) if name not in node.inputs)
        else:
            node.code[dep.path] = dep.md5

    def _outs_of(self, path: str) -> Iterator[str]:
        """Yield the output with a dependency's path, or the outputs inside that folder."""
        inside = path.rstrip("/") + "/"
        return (out for out in self.snapshot.producers if out == path or out.startswith(inside))

    def _drop_unused_parents(self, node: Node) -> None:
        """Keep only the inputs of a merged adapter that its recipe names."""
        if node.metadata is None or node.metadata.kind != "merged adapter":
            return
        keys = {self._bare(n).key: n for n in node.inputs if n in self.snapshot.producers}
        if set(node.metadata.parents) <= keys.keys():
            node.inputs = [keys[key] for key in node.metadata.parents]

    def _data(self, name: str) -> Node:
        entry = self._data_entry(name)
        node = Node(name, "data", entry)
        node.facts = self._sources(name)
        return node

    def _data_entry(self, name: str) -> Entry:
        """Return the record of a file of data by a stage that read it, else by `data.dvc`."""
        for stage in self.snapshot.stages.values():
            if name in stage.deps:
                return stage.deps[name]
        return Entry(name, self.pinned.hash_below(name) or "")

    def _sources(self, name: str) -> dict[str, Any]:
        """Return the sources, with revision and licence, and the number of rows of a split."""
        parts = PurePosixPath(name).parts
        tasks = self.pinned.manifest.get("tasks", {})
        if len(parts) < 2:
            return {"tasks": sorted(tasks)}
        task = tasks.get(parts[1])
        if task is None:
            return {}
        split = PurePosixPath(name).stem
        rows = task["splits"].get(split, {}).get("count")
        used = [
            s for s in task["sources"] if split != "train" or "train" in s.get("gives", [split])
        ]
        return {"rows": rows, "sources": [source_text(source) for source in used]}

    def locate(self) -> None:
        """Set `presence` of each node: where its recorded bytes are."""
        places = self.objects.presence(n.entry.md5 for n in self.nodes.values() if n.entry.md5)
        for node in self.nodes.values():
            node.presence = places.get(node.entry.md5, "gone")
            if node.presence == "gone" and self._in_pinned(node):
                node.presence = "cache"

    def _in_pinned(self, node: Node) -> bool:
        """Return whether a node is the data folder and all files that `data.dvc` pins are known."""
        pinned = self.pinned
        return node.name == pinned.folder and pinned.md5 == node.entry.md5 and bool(pinned.listing)


def source_text(source: dict[str, Any]) -> str:
    """Return one source of data as a line: kind, name, revision, licence."""
    named = source.get("name") or source.get("path") or ""
    revision = f" at {source['revision']}" if source.get("revision") else ""
    licence = source.get("license") or "not stated here"
    return f"{source.get('kind', '')} {named}{revision} (licence: {licence})"


def primary(stage: StageEntry) -> str:
    """Return a stage's main output: the artifact, not the metrics."""
    outs = list(stage.outs)
    return next((out for out in outs if not out.startswith("metrics/")), outs[0])


def find(snapshot: Snapshot, name: str) -> str:
    """Return the output or file of data that a path names, or the output that the path lies in.

    Raises:
        InputError: the snapshot has nothing of that name; the message suggests the nearest names.
    """
    wanted = PurePosixPath(name)
    data = snapshot.data
    known = [*snapshot.producers, *([data.path] if data else [])]
    for path in (wanted, *wanted.parents):
        if str(path) in snapshot.producers:
            return str(path)
        if data is not None and str(path) == data.path:
            return str(wanted)
    if name in snapshot.stages:
        return primary(snapshot.stages[name])
    if data is None and wanted.parts[:1] == (PINNED,):
        raise InputError(f"{DATA}: missing, so the recorded data is not known; {MEND_PIN}")
    if snapshot.here and (snapshot.workspace / wanted).exists():
        raise InputError(
            f"{name}: is here, but {LOCK} records no stage that made it: the stage has not ended "
            f"(lori run), no stage of the pipeline makes it, or {LOCK} is damaged; {MEND_LOCK}"
        )
    raise InputError(
        f"{name}: {snapshot.label} has no such artifact{nearest(name, [*known, *snapshot.stages])}"
        f" (dvc.lock records {len(known)}; lori plan lists the stages)"
    )


def read_metadata(snapshot: Snapshot, objects: Objects, entry: Entry) -> ArtifactMetadata | None:
    """Return an artifact's own metadata; None for other outputs, or if its bytes are gone."""
    readers: dict[str, Callable[[bytes, str], ArtifactMetadata]] = {}
    if entry.path.endswith(".safetensors"):
        readers = {"": artifact_metadata.of_mask}
    elif entry.is_folder:
        readers = {file: read for file, (read, _) in artifact_metadata.FOLDERS.items()}
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
        return None  # a folder of another kind
    md5 = (objects.files(entry.md5) or {}).get(inside)
    return objects.content(md5) if md5 else None


def _from_cache(
    objects: Objects,
    entry: Entry,
    inside: str,
    read: Callable[[bytes, str], ArtifactMetadata],
    where: str,
) -> ArtifactMetadata | None:
    """Return an artifact's metadata from the cache, because the file here is damaged."""
    md5 = (objects.files(entry.md5) or {}).get(inside)
    content = objects.content(md5) if md5 else None
    try:
        return None if content is None else read(content, where)
    except AdapterError:
        return None


def _kind(name: str, metadata: ArtifactMetadata | None) -> str:
    if metadata is not None:
        return metadata.kind
    if name.startswith(f"{EVALUATIONS}/"):
        return "evaluation"
    first = Path(name).parts[0]
    return first if first in ("report", "metrics") else "artifact"
