"""`params.yaml` itself: reading it, and rewriting it only to what has been validated."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lori_core import methods, stage_dependencies
from lori_core.config import Params, parse
from lori_core.data import sources
from lori_core.errors import ConfigError, unknown
from lori_core.files import write_text
from lori_core.validation import Strict

PARAMS = Path("params.yaml")
PROFILES = Path("profiles")


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
    try:
        values = _parsed(path.read_text(encoding="utf-8-sig"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file (run this in the project's folder)") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(values, Mapping):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"{path}: expected a mapping of sections, found {found}")
    return values


def _parsed(text: str, where: str) -> Any:
    """Return what YAML says, in one line why it says nothing."""
    from ruamel.yaml.error import YAMLError

    try:
        return _yaml().load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}{line}: not valid YAML ({why})") from None
    except RecursionError:
        raise ConfigError(f"{where}: lists and sections are nested too deep to be read") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _plain(values: Any, where: str = "") -> Any:
    """Return ruamel's mappings and sequences as plain dicts and lists.

    Raises:
        ConfigError: for a key that YAML does not read as text (`2024`, `true`, `null`).
    """
    if isinstance(values, Mapping):
        for key in values:
            if not isinstance(key, str):
                raise ConfigError(f"{where}{key!r}: a key must be text; put it in quotes")
        return {str(key): _plain(value, f"{where}{key}.") for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(value, where) for value in values]
    return values


def load(path: Path = PARAMS) -> Params:
    """Read and validate `params.yaml`."""
    return _checked(_read(path), path)


def _checked(values: Any, path: Path) -> Params:
    try:
        params = parse(_plain(values, f"{path}: "), str(path))
    except RecursionError:
        raise ConfigError(f"{path}: a list or section holds itself") from None
    methods.check(params)
    return params


def profiles(folder: Path = PROFILES) -> list[str]:
    """Return the names of the profiles there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def changed(params_path: Path, profile: str | None, overrides: Sequence[str]) -> tuple[Params, str]:
    """Return what `apply` would write, validated, and its text; nothing is written.

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
    """Write in the keys that DVC reads and that were left out, with their defaults; return them.

    DVC compares `params.yaml` as it is written and refuses a stage whose parameter is not there.
    """
    return [key for key in _read_by_dvc(params) if _fill(values, key, params)]


def _read_by_dvc(params: Params) -> Iterator[str]:
    """Yield the keys that `dvc.yaml` names, for these tasks and merges."""
    yield from ("continual.safety_task", "continual.tasks", "merge")
    for stage in stage_dependencies.STAGES.values():
        items = params.items_of(stage.items) if stage.items != "none" else [""]
        yield from (key.format(item=item) for item in items for key in stage.params)


def _fill(values: Any, key: str, params: Params) -> bool:
    """Set one key to its default where it is not there; say whether it was not."""
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
    section[last] = {} if isinstance(value, (Strict, Mapping)) else _as_yaml(value)
    return True


def _as_yaml(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _changed(
    params_path: Path, profile: str | None, overrides: Sequence[str]
) -> tuple[Any, list[str]]:
    folder = params_path.parent / PROFILES
    if profile and profile not in profiles(folder):
        raise ConfigError(f"--profile: {unknown('profile', profile, profiles(folder))}")
    values = _read(folder / f"{profile}.yaml" if profile else params_path)
    said = [f"{params_path.name}: now the profile {profile}"] if profile else []
    said += [f"{params_path.name}: {_override(values, text)}" for text in overrides]
    return values, said


def profile_of(params: Params, folder: Path = PROFILES) -> str | None:
    """Return the profile that says the same as these parameters, if one does."""
    for path in sorted(folder.glob("*.yaml")):
        try:
            if load(path) == params:
                return path.stem
        except ConfigError:
            continue
    return None


def apply(params_path: Path, profile: str | None, overrides: Sequence[str]) -> list[str]:
    """Rewrite `params.yaml` to a profile, then to `key=value` overrides; say what changed.

    What was left out and DVC reads is written in with its default. The result is validated first: a
    refused change leaves the file as it was.

    Raises:
        ConfigError: for a profile, key or source that does not exist, or a value that is not
            allowed.
    """
    values, said = _changed(params_path, profile, overrides)
    params = _checked(values, params_path)
    if profile or overrides:
        sources.check(params)
    added = _complete(values, params)
    if added:
        said.append(f"{params_path.name}: written in at their defaults: {', '.join(added)}")
    if not said:
        return []
    text = _text(values)
    if params_path.exists() and params_path.read_text(encoding="utf-8") == text:
        return [f"{params_path.name}: unchanged"]
    write_text(params_path, text)
    return said


def _override(values: Any, text: str) -> str:
    """Set one `a.b.c=value` in place; the value is read as YAML."""
    key, equals, written = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r}: expected key=value, as in lori.rank=16")
    value = _number(_parsed(written, f"--set {key}") if written else None)
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
        # A section that the file leaves at its defaults is made; the schema says if there is one.
        section = _own(section, part, values)
    if not isinstance(section, Mapping):
        raise ConfigError(f"--set {key}: {'.'.join(folders)} is a value, it has no keys")
    before = section.get(last)
    section[last] = value  # type: ignore[index]
    return f"{key}: {before!r} -> {value!r}"


def _own(section: Any, part: str, values: Any) -> Any:
    """Return a section's part to be changed, apart from other places that share it (`*name`)."""
    found = section.setdefault(part, {})
    if isinstance(found, Mapping) and _uses(values, found) > 1:
        found = section[part] = copy.deepcopy(found)
        found.yaml_set_anchor(None)  # type: ignore[attr-defined]
    return found


def _uses(values: Any, wanted: Any) -> int:
    """Count the places that hold one and the same object."""
    inside = values.values() if isinstance(values, Mapping) else values
    if not isinstance(values, (Mapping, list)):
        return 0
    return sum((1 if value is wanted else 0) + _uses(value, wanted) for value in inside)


def _number(value: Any) -> Any:
    """YAML 1.2 reads `5e-4` as text; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
