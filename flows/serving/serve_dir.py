"""A folder of PEFT adapters by name and alias, which vLLM and SGLang load while they serve.

```
OUT/index.json            which adapter each name stands for
OUT/math                  a link to a folder in .versions: the adapter of the task math
OUT/champion              a link that follows MLflow's alias; also `previous`
OUT/lori-3                version 3 of the registered model lori; this link never moves
OUT/.versions/math-…      the adapters, complete when they appear, and never changed
```

A link moves by one rename. A reader that resolves a link once therefore reads one whole adapter,
the former or the new one. An adapter without a name stays for ten minutes for readers that began.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.tracking.logged_models import KEY, MD5
from flows.tracking.registry import CHAMPION, PREVIOUS, Registry, Version, scratch
from flows.versioning.objects import hash_on_disk
from lori_core.config import Params
from lori_core.config.model import ModelSection
from lori_core.core.errors import InputError, LoriError
from lori_core.core.files.atomic import digest, read_json, write_json
from lori_core.models.base_identity import BaseIdentity, Match, match, same_name
from lori_core.models.peft_names import CONFIG_FILE

FORMAT = "lori-serve-dir/1"
INDEX, VERSIONS, LOCK = "index.json", ".versions", ".lock"
#: The workspace's list of the folders that the gate and `lori rollback` update.
REGISTERED = Path(".lori/serve-dirs.json")
#: How long an adapter without a name stays, in seconds.
GRACE_SECONDS = 600.0
_UNUSED = ".unused-since"


@dataclass(frozen=True)
class Served:
    """An adapter to serve: an artifact of the workspace, or a registered version.

    Attributes:
        source: the artifact's path, or `models:/NAME/3`.
        identity: what decides its bytes.
        version: the registered version; None for an artifact.
    """

    source: str
    identity: str
    version: Version | None = None

    @property
    def slug(self) -> str:
        """The source as a part of a file name."""
        return re.sub("[^A-Za-z0-9]+", "-", re.sub("^(artifacts|models:)/", "", self.source))


@dataclass(frozen=True)
class ServedBase:
    """The base model of a running server.

    Attributes:
        name: its name or path as the server was started with.
        model: the section `model` of `params.yaml` that it stands for, unless adapters name it so.
    """

    name: str
    model: ModelSection

    def takes(self, bases: Mapping[str, BaseIdentity]) -> set[str]:
        """Return the adapters that were made for this base, of bases by adapter."""
        from lori_core.adapters.base_choice import stands_for

        own = BaseIdentity(self.name, "", "", "")
        named = {adapter for adapter, base in bases.items() if same_name(own, base)}
        if named:
            known = [bases[adapter] for adapter in named]
            return named | {
                adapter
                for adapter, base in bases.items()
                if any(match(base, other) is Match.PROVED for other in known)
            }
        return {adapter for adapter, base in bases.items() if stands_for(self.model, base)}


def serve_dir(workspace: Path, params: Params, out: Path, base: str | None = None) -> list[str]:
    """Write or update a folder; from then on promotions and rollbacks here update it.

    Args:
        workspace: the workspace of the adapters.
        params: the content of `params.yaml`.
        out: the folder: missing, empty, or written by this function before.
        base: the base model's name or path as the server was started with; None for the name that
            the adapters hold. vLLM loads only adapters of that name. Adapters of another base are
            left out: if no adapter names its base so, it is another name of that in `params`.

    Returns:
        A line for each name that changed, and for each adapter that was left out.

    Raises:
        InputError: the folder holds something else, or no adapter is there yet.
        LoriError: the registry cannot be read.
    """
    _check(out)
    served = dict(_served(workspace, params))
    if not served:
        raise InputError(f"{out}: there is no adapter to serve yet; lori run trains them")
    out.mkdir(parents=True, exist_ok=True)
    lines = _update(workspace, out, served, ServedBase(base, params.model) if base else None)
    known = _registered(workspace)
    if out.resolve() not in known:
        (workspace / REGISTERED).parent.mkdir(exist_ok=True)
        write_json(workspace / REGISTERED, [str(path) for path in [*known, out.resolve()]])
    return lines


def update_all(workspace: Path, model: str) -> list[str]:
    """Update the workspace's folders after the champion of a model changed; return lines.

    A folder that cannot be updated is a line, not an error: the champion has changed already.
    """
    from pydantic import ValidationError

    from lori_core.pipeline import params_file

    known = _registered(workspace)
    if not known:
        return []
    params = params_file.load(workspace / params_file.PARAMS)
    lines = []
    for out in known if params.gate.model == model else ():
        try:
            index = _check(out)
            if not index:
                continue  # it was deleted
            base = index["base"]
            # Adapters may have been trained for another base since.
            recorded = index.get("model")
            trained = ModelSection.model_validate(recorded) if recorded else params.model
            server = ServedBase(base, trained) if base else None
            lines += _update(workspace, out, dict(_served(workspace, params)), server)
        except (LoriError, OSError, ValidationError) as error:
            lines.append(f"{out}: still serves the former adapters ({error}); lori serve-dir {out}")
    return lines


def _registered(workspace: Path) -> list[Path]:
    path = workspace / REGISTERED
    return [Path(place) for place in json.loads(path.read_text("utf-8"))] if path.is_file() else []


def _check(out: Path) -> dict[str, Any]:
    """Return the folder's index; empty for a missing or empty folder.

    Raises:
        InputError: the folder was not written by `lori serve-dir`.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: is not a folder; name a folder for the adapters")
    index = out / INDEX
    if index.is_file():
        content = read_json(index)
        if isinstance(content, dict) and content.get("format") == FORMAT:
            return content
        raise InputError(f"{index}: was not written by lori serve-dir; name another folder")
    if out.is_dir() and any(place.name not in (VERSIONS, LOCK) for place in out.iterdir()):
        raise InputError(f"{out}: is not empty and has no {INDEX} of lori serve-dir; name another")
    return {}


def _served(workspace: Path, params: Params) -> Iterator[tuple[str, Served]]:
    """Yield the names and adapters to serve: the workspace's, and the champion and previous one."""
    paths = {task: f"artifacts/{task}/adapter" for task in params.tasks}
    paths |= {f"merged-{name}": f"artifacts/merged/{name}" for name in params.merge}
    for task in params.continual.tasks if params.continual else ():
        paths[f"continual-{task}"] = f"artifacts/continual/{task}/adapter"
    versions = dict(_versions(workspace, params.gate.model))
    for name in paths.keys() & versions.keys():
        raise InputError(
            f"{paths[name]}: is named {name}, as a registered version; rename the task"
        )
    for name, path in paths.items():
        if (workspace / path).is_dir():
            yield name, Served(path, str(hash_on_disk(workspace / path)))
    yield from versions.items()


def _versions(workspace: Path, model: str) -> Iterator[tuple[str, Served]]:
    try:
        registry = Registry(workspace, make=False)
    except InputError:  # no local store yet
        return
    for alias in (CHAMPION, PREVIOUS):
        version = registry.at(model, alias)
        if version is not None:
            identity = digest([version.tags.get(KEY), version.tags.get(MD5), version.source])
            served = Served(f"models:/{version.name}/{version.number}", identity, version)
            yield alias, served
            yield f"{version.name}-{version.number}".replace("/", "-"), served


def _update(
    workspace: Path, out: Path, served: Mapping[str, Served], server: ServedBase | None
) -> list[str]:
    """Write the adapters that are missing, then move the links; return what changed."""
    from filelock import FileLock

    from lori_core.adapters.adapter import full_name

    lines: list[str] = []
    links: dict[str, dict[str, Any]] = {}
    with FileLock(out / LOCK, mode=0o600):
        former: dict[str, Any] = _check(out).get("adapters", {})
        _check_names(out, served)
        base = server.name if server else None
        written: dict[tuple[str, str], str | None] = {}
        for name, adapter in served.items():
            place = adapter.source, adapter.identity
            if place not in written:
                written[place] = _write(workspace, out, adapter, base)
            version = written[place]
            if version is None:
                lines.append(f"{name}: {adapter.source} is left out: servers load plain LoRA only")
            else:
                links[name] = {"version": version, "source": adapter.source}
        bases = _bases(out, links, former) if server else {}
        taken = server.takes(bases) if server else links.keys()
        for name in sorted(links.keys() - taken):
            reason = f"it was made for the base {full_name(bases[name])}, not for {base!r}"
            lines.append(f"{name}: {links.pop(name)['source']} is left out: {reason}")
        for name, entry in links.items():
            if server:
                entry["base"] = bases[name].as_dict()
            if _point(out, name, entry["version"]):
                lines.append(f"{out / name}: {entry['source']}")
        for name in former.keys() - links.keys():
            if (out / name).is_symlink():
                (out / name).unlink()
                lines.append(f"{out / name}: removed")
        model = server.model.model_dump() if server else None
        index = {"format": FORMAT, "base": base, "model": model, "adapters": links}
        write_json(out / INDEX, index)
        _clean(out, {entry["version"] for entry in links.values()})
    return lines


def _bases(
    out: Path, links: Mapping[str, Mapping[str, Any]], former: Mapping[str, Mapping[str, Any]]
) -> dict[str, BaseIdentity]:
    """Return the base that each adapter was made for, by name; each adapter is opened once."""
    from lori_core.methods import finetuned_model

    known = {
        e["version"]: BaseIdentity.of(e["base"], INDEX) for e in former.values() if "base" in e
    }
    for entry in links.values():
        version = entry["version"]
        if version not in known:
            known[version] = finetuned_model.open_model(out / VERSIONS / version).base
    return {name: known[entry["version"]] for name, entry in links.items()}


def _check_names(out: Path, served: Mapping[str, Served]) -> None:
    """Refuse to replace a file or folder that is not a link of ours."""
    for name in served:
        if (out / name).exists() and not (out / name).is_symlink():
            raise InputError(f"{out / name}: is not a link of lori serve-dir; move it away")


def _write(workspace: Path, out: Path, adapter: Served, base: str | None) -> str | None:
    """Write an adapter into `.versions` unless it is there; return its folder, None if refused."""
    version = f"{adapter.slug}-{digest([adapter.identity, base])[:16]}"
    target = out / VERSIONS / version
    if target.is_dir():
        return version
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{version}-{uuid.uuid4().hex[:8]}")
    try:
        with scratch() as folder:
            peft = _peft(workspace, adapter, folder)
            if peft is None:
                return None
            shutil.copytree(peft, temporary)
        if base is not None:
            config = read_json(temporary / CONFIG_FILE)
            write_json(temporary / CONFIG_FILE, config | {"base_model_name_or_path": base})
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return version


def _peft(workspace: Path, adapter: Served, folder: Path) -> Path | None:
    """Return a stock PEFT folder of an adapter; None if it is no plain LoRA.

    Raises:
        AdapterError: the artifact is damaged.
    """
    from flows.serving.packaging import ADAPTER
    from lori_core.adapters.adapter import Adapter
    from lori_core.methods import finetuned_model

    if adapter.version is not None:
        peft = Registry(workspace, make=False).download(adapter.version, ADAPTER, folder)
    else:
        model = finetuned_model.open_model(workspace / adapter.source)
        if not isinstance(model, Adapter):
            return None
        peft = folder / "peft"
        finetuned_model.export(model, peft)
    config = read_json(peft / CONFIG_FILE)
    plain = config.get("peft_type") == "LORA" and not config.get("use_dora")
    return peft if plain else None


def _point(out: Path, name: str, version: str) -> bool:
    """Let a name's link point to a version, in one step; return whether it changed."""
    link, target = out / name, f"{VERSIONS}/{version}"
    if link.is_symlink() and link.readlink().as_posix() == target:
        return False
    temporary = out / f".{name}-{uuid.uuid4().hex[:8]}"
    temporary.symlink_to(target, target_is_directory=True)
    temporary.replace(link)
    return True


def _clean(out: Path, used: set[str]) -> None:
    """Delete the versions that had no name for ten minutes."""
    for place in list((out / VERSIONS).iterdir()):
        mark = out / VERSIONS / f"{_UNUSED}-{place.name}"
        if place.name.startswith(_UNUSED):
            if not (place.with_name(place.name.removeprefix(f"{_UNUSED}-"))).exists():
                place.unlink(missing_ok=True)
        elif place.name in used:
            mark.unlink(missing_ok=True)
        elif not mark.exists():
            mark.touch()
        elif time.time() - mark.stat().st_mtime > GRACE_SECONDS:
            shutil.rmtree(place, ignore_errors=True)
            mark.unlink(missing_ok=True)
