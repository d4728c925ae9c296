"""`params.yaml` itself: reading it, and rewriting it only to what has been validated."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lori_core import methods
from lori_core.config import Params, parse
from lori_core.data import sources
from lori_core.errors import ConfigError, unknown
from lori_core.files import write_text

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
    from ruamel.yaml.error import MarkedYAMLError

    try:
        return _yaml().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file (run this in the project's folder)") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not valid YAML ({error.problem})") from None


def _plain(values: Any) -> Any:
    """Return ruamel's mappings and sequences as plain dicts and lists."""
    if isinstance(values, Mapping):
        return {str(key): _plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    return values


def load(path: Path = PARAMS) -> Params:
    """Read and validate `params.yaml`."""
    return _checked(_read(path), path)


def _checked(values: Any, path: Path) -> Params:
    params = parse(_plain(values), str(path))
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
    buffer = io.StringIO()
    _yaml().dump(values, buffer)
    return params, buffer.getvalue()


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

    The result is validated first: a refused change leaves the file as it was.

    Raises:
        ConfigError: for a profile, key or source that does not exist, or a value that is not
            allowed.
    """
    if not profile and not overrides:
        load(params_path)
        return []
    values, said = _changed(params_path, profile, overrides)
    sources.check(_checked(values, params_path))
    buffer = io.StringIO()
    _yaml().dump(values, buffer)
    if params_path.exists() and params_path.read_text(encoding="utf-8") == buffer.getvalue():
        return [f"{params_path.name}: unchanged"]
    write_text(params_path, buffer.getvalue())
    return said


def _override(values: Any, text: str) -> str:
    """Set one `a.b.c=value` in place; the value is read as YAML."""
    key, equals, written = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r}: expected key=value, as in lori.rank=16")
    value = _number(_yaml().load(written) if written else None)
    *folders, last = key.split(".")
    section = values
    if folders and folders[0] in Params.model_fields and folders[0] not in values:
        values[folders[0]] = {}  # a section that the file leaves at its defaults
    for depth, part in enumerate(folders):
        if not isinstance(section, Mapping) or part not in section:
            known = list(section) if isinstance(section, Mapping) else []
            where = ".".join(folders[: depth + 1])
            raise ConfigError(f"--set {where}: {unknown('key', part, map(str, known))}")
        section = section[part]
    if not isinstance(section, Mapping):
        raise ConfigError(f"--set {key}: {'.'.join(folders)} is a value, it has no keys")
    before = section.get(last)
    section[last] = value  # type: ignore[index]
    return f"{key}: {before!r} -> {value!r}"


def _number(value: Any) -> Any:
    """YAML 1.2 reads `5e-4` as text; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
