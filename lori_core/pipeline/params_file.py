"""Reading `params.yaml`, and rewriting it after validation."""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lori_core.config import Params, parse
from lori_core.config.validation import Strict
from lori_core.core import stage_dependencies
from lori_core.core.errors import ConfigError, shown, unknown
from lori_core.core.files import yaml_input
from lori_core.core.files.atomic import write_text
from lori_core.data.sources import pulling
from lori_core.methods import catalogue
from lori_core.registries import extensions

PARAMS = Path("params.yaml")
PROFILES = Path("profiles")
#: The limit of a dotted key's length (characters).
LONGEST_KEY = 500


@cache
def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()  # keeps comments and order, so that `--set` changes one line only
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None),
        lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null"),
    )
    yaml.width = 100
    return yaml


def _read(path: Path) -> Any:
    """Return a file's mapping, which all readers of the same text share: do not change it."""
    try:
        text = yaml_input.read_text(path)
    except ConfigError as error:
        here = "" if path.exists() or path.is_symlink() else " (run this in the project's folder)"
        raise ConfigError(f"{error}{here}") from None
    return _sections(yaml_input.load(text, str(path), _loaded), str(path))


def _sections(values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        kind = "nothing" if values is None else f"a {_KINDS.get(type(values).__name__, 'value')}"
        raise ConfigError(f"{where}: expected a mapping of sections, found {kind}")
    return values


_KINDS = {"CommentedSeq": "list", "list": "list"}


@lru_cache(maxsize=8)
def _loaded(text: str) -> Any:
    return _yaml().load(text)


def _plain(values: Any, where: str = "") -> Any:
    """Return ruamel's mappings and sequences as plain dicts and lists."""
    return yaml_input.plain(values, where)


def read_values(content: bytes, where: str) -> dict[str, Any]:
    """Return the values of a `params.yaml` without validating them.

    Args:
        content: the file's bytes.
        where: the file's name in messages.

    Raises:
        ConfigError: the content is not YAML, or not a mapping.
    """
    values = yaml_input.load(yaml_input.decoded(content, where), where, _loaded)
    plain: dict[str, Any] = _plain(_sections(values, where), f"{where}: ")
    return plain


def load(path: Path = PARAMS, workspace: Path | None = None) -> Params:
    """Read and validate `params.yaml` or a profile.

    Args:
        path: the file.
        workspace: the folder for relative paths in the file; the file's folder if None.

    Raises:
        ConfigError: the file cannot be read, or a value is not allowed.
    """
    return _checked(_read(path), path, workspace)


def _checked(values: Any, path: Path, workspace: Path | None = None) -> Params:
    workspace = path.parent if workspace is None else workspace
    params = parse(_plain(values, f"{path}: "), str(path), workspace)
    with extensions.loaded(params.extensions, f"{path}: {extensions.KEY}", workspace):
        catalogue.check(params)
        pulling.check(params)
    return params


def profiles(folder: Path = PROFILES) -> list[str]:
    """Return the names of the profiles in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def described(folder: Path = PROFILES) -> list[dict[str, Any]]:
    """Return each profile's `name`, base `model`, `tasks`, and `about`: its first comment."""
    rows = []
    for name in profiles(folder):
        text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
        values = read_values(text.encode(), f"{folder}/{name}.yaml")
        comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
        about = " ".join(line.removeprefix("#").strip() for line in comment)
        about = about.partition(". ")[0].partition(": ")[0].removesuffix(".")
        model = (values.get("model") or {}).get("name_or_path", "")
        tasks = list(values.get("tasks") or {})
        rows.append({"name": name, "model": model, "tasks": tasks, "about": about})
    return rows


def changed(params_path: Path, profile: str | None, overrides: Sequence[str]) -> tuple[Params, str]:
    """Return the validated parameters that `apply` would write, and the file's text.

    Raises:
        ConfigError: as `apply` does.
    """
    values, _ = _changed(params_path, profile, overrides)
    params = _checked(values, params_path)
    _complete(values, params)
    return params, _text(values)


def _text(values: Any) -> str:
    buffer = io.StringIO()
    _yaml().dump(values, buffer)
    return buffer.getvalue()


def _complete(values: Any, params: Params) -> list[str]:
    """Add the missing keys that DVC reads, with their defaults; return these keys.

    DVC reads `params.yaml` without the schema and refuses a stage if a parameter is missing.
    """
    return [key for key in _read_by_dvc(params) if _fill(values, key, params)]


def _read_by_dvc(params: Params) -> Iterator[str]:
    """Yield the keys that `dvc.yaml` names, for these tasks and merges."""
    yield from ("continual.safety_task", "continual.tasks", "merge")
    yield from (f"merge.{name}.stage" for name in params.merge)
    for stage in stage_dependencies.STAGES.values():
        items = params.items_of(stage.items) if stage.items != "none" else [""]
        yield from (key.format(item=item) for item in items for key in stage.params)


def _fill(values: Any, key: str, params: Params) -> bool:
    """Set a key to its default if it is missing; return whether it was missing."""
    *folders, last = key.split(".")
    section, default = values, params
    for part in folders:
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        default = default[part] if isinstance(default, Mapping) else getattr(default, part)
    if last in section:
        return False
    value = getattr(default, last)
    _append(section, last, {} if isinstance(value, (Strict, Mapping)) else _as_yaml(value))
    return True


def _append(section: Any, key: str, value: Any) -> None:
    """Add a key at the end of a section, before the blank lines that follow the section."""
    before = next(reversed(section), None)
    section[key] = value
    comments = section.ca.items if hasattr(section, "ca") else {}
    after = (comments.get(before) or [None] * 3)[2]
    if after is not None and after.value.startswith("\n"):
        comments[key] = comments.pop(before)


def _as_yaml(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _changed(
    params_path: Path, profile: str | None, overrides: Sequence[str]
) -> tuple[Any, list[str]]:
    folder = params_path.parent / PROFILES
    if profile and profile not in profiles(folder):
        raise ConfigError(f"--profile: {unknown('profile', profile, profiles(folder))}")
    values = copy.deepcopy(_read(folder / f"{profile}.yaml" if profile else params_path))
    messages = [f"{params_path.name}: now the profile {profile}"] if profile else []
    messages += [f"{params_path.name}: {_override(values, text)}" for text in overrides]
    return values, messages


def profile_of(params: Params, folder: Path = PROFILES) -> str | None:
    """Return the name of the profile with the same parameters; None if there is none."""
    for path in sorted(folder.glob("*.yaml")):
        try:
            if load(path, folder.parent) == params:
                return path.stem
        except ConfigError:
            continue
    return None


def apply(params_path: Path, profile: str | None, overrides: Sequence[str]) -> list[str]:
    """Rewrite `params.yaml` with a profile, then with `key=value` overrides.

    Missing keys that DVC reads are added with their defaults. The result is validated before the
    file is written.

    Args:
        params_path: the file; profiles are in the folder `profiles` next to it.
        profile: the name of a profile; None to keep the file's values.
        overrides: the values of `--set`.

    Returns:
        One line for each change.

    Raises:
        ConfigError: a profile, key or source does not exist, or a value is not allowed; the file
            is unchanged.
    """
    values, messages = _changed(params_path, profile, overrides)
    params = _checked(values, params_path)
    added = _complete(values, params)
    if added:
        messages.append(f"{params_path.name}: written in at their defaults: {', '.join(added)}")
    if not messages:
        return []
    text = _text(values)
    if params_path.exists() and yaml_input.read_text(params_path) == text:
        return [f"{params_path.name}: unchanged"]
    write_text(params_path, text)
    return messages


def _override(values: Any, text: str) -> str:
    """Set `a.b.c=value` in place, with the value as YAML; return a description of the change."""
    key, equals, written = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {shown(text)}: expected key=value, as in lori.rank=16")
    if len(key) > LONGEST_KEY or not all(key.split(".")):
        raise ConfigError(
            f"--set {shown(text)}: expected names with dots between them before the =, as in "
            "lori.rank=16"
        )
    value = copy.deepcopy(yaml_input.load(written, f"--set {key}", _loaded))
    _plain(value, f"--set {key}: ")
    *folders, last = key.split(".")
    section = values
    first = key.partition(".")[0]
    if first not in Params.model_fields:
        raise ConfigError(f"--set {first}: {unknown('key', first, Params.model_fields)}")
    for depth, part in enumerate(folders):
        if not isinstance(section, Mapping):
            break
        if folders[0] in ("tasks", "merge") and depth == 1 and part not in section:
            raise ConfigError(f"--set {key}: {unknown(folders[0].rstrip('s'), part, section)}")
        # Create a section that the file does not have; validation refuses unknown sections.
        section = _unshared(section, part, values)
    if not isinstance(section, Mapping):
        raise ConfigError(f"--set {key}: {'.'.join(folders)} is a value, it has no keys")
    before = section.get(last)
    section[last] = value  # type: ignore[index]
    return f"{key}: {before!r} -> {value!r}"


def _unshared(section: Any, part: str, values: Any) -> Any:
    """Return a part of a section; copy it first if YAML aliases (`*name`) share it."""
    value = section.setdefault(part, {})
    if isinstance(value, Mapping) and _uses(values, value) > 1:
        value = section[part] = copy.deepcopy(value)
        value.yaml_set_anchor(None)  # type: ignore[attr-defined]
    return value


def _uses(values: Any, wanted: Any) -> int:
    """Return the number of places that refer to the same object."""
    inside = values.values() if isinstance(values, Mapping) else values
    if not isinstance(values, (Mapping, list)):
        return 0
    return sum((1 if value is wanted else 0) + _uses(value, wanted) for value in inside)
