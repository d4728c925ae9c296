"""Load extensions: a user's Python files that add entries to the registries.

The bytes that are hashed are the bytes that are executed. Extensions are trusted like the rest of
the workspace's code.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType

from lori_core.core.errors import ConfigError, shown
from lori_core.core.files.input_files import read_bytes
from lori_core.registries import registry
from lori_core.registries.registry import ExtensionFile

#: The key of `params.yaml` that lists extensions.
KEY = "extensions"
#: The most bytes of an extension file.
_MAX_BYTES = 16 << 20
#: The executed files and their entries, so that each file is executed once per process.
_EXECUTED: dict[ExtensionFile, list[tuple[registry.Registry[registry.Named], registry.Named]]] = {}


def named(paths: object, where: str, workspace: Path | None = None) -> list[Path]:
    """Return the checked paths of extension files.

    Args:
        paths: the value of the key or option.
        where: the beginning of error messages, as `params.yaml: extensions`.
        workspace: the folder that must contain the files; None allows any, as on the command line.

    Raises:
        ConfigError: `paths` is no list of paths, has one twice, or one that is no extension.
    """
    if not isinstance(paths, Sequence) or isinstance(paths, str):
        raise ConfigError(f"{where}: expected a list of paths, as [{KEY}/mine.py], got {paths!r}")
    files: list[Path] = []
    for path in paths:
        if not isinstance(path, str) or not path or not path.isprintable():
            raise ConfigError(f"{where}: {shown(path)} is no path, as {KEY}/mine.py")
        file = Path(path) if workspace is None else _inside(path, where, workspace)
        if file.suffix != ".py":
            raise ConfigError(f"{where}: {path}: is no Python file; name one that ends in .py")
        if not file.is_file():
            raise ConfigError(f"{where}: {path}: no such file; write it, or take it off the list")
        if file.resolve() in (other.resolve() for other in files):
            raise ConfigError(f"{where}: {path}: is named twice; take one away")
        files.append(file)
    return files


def _inside(path: str, where: str, workspace: Path) -> Path:
    """Return a path inside the workspace; it must be written in DVC's normal form."""
    plain = PurePosixPath(path)
    if plain.is_absolute():
        raise ConfigError(
            f"{where}: {path}: is absolute; put the file into this folder and name it from here, "
            f"as {KEY}/{plain.name}"
        )
    root = workspace.resolve()
    if ".." in plain.parts or not (root / plain).resolve().is_relative_to(root):
        raise ConfigError(
            f"{where}: {path}: lies outside of this folder; copy the file to {KEY}/{plain.name} "
            "and name that"
        )
    if str(plain) != path or any(c in path for c in "${}:#"):
        raise ConfigError(f"{where}: {path}: write it plainly, as {KEY}/{plain.name}")
    return workspace / plain


@contextmanager
def loaded(paths: object, where: str, workspace: Path) -> Iterator[None]:
    """Execute a workspace's extensions, each once; inside, only their entries are visible.

    The entries stay registered afterwards, so that the validated parameters can be used.

    Raises:
        ConfigError: as `named` and `load`.
    """
    files = named(paths, where, workspace)
    names = [] if not files else [str(PurePosixPath(str(path))) for path in list(paths)]  # type: ignore[call-overload]
    with registry.restricted_to(frozenset(_load(files, names, where))):
        yield


def load(paths: Sequence[str], where: str) -> None:
    """Execute extension files named on the command line.

    Raises:
        ConfigError: a file is no extension, fails, or registers a name that is taken.
    """
    _load(named(paths, where), list(paths), where)


def _load(files: Sequence[Path], names: Sequence[str], where: str) -> list[ExtensionFile]:
    origins: list[ExtensionFile] = []
    for file, name in zip(files, names, strict=True):
        content = read_bytes(file, _MAX_BYTES, ConfigError)
        origin = ExtensionFile(name, hashlib.sha256(content).hexdigest())
        with registry.restricted_to(frozenset(origins)):
            _run(origin, content, file, where)
        origins.append(origin)
    return origins


def _run(origin: ExtensionFile, content: bytes, file: Path, where: str) -> None:
    if origin in _EXECUTED and all(r.holds(entry) for r, entry in _EXECUTED[origin]):
        return
    registry.forget(origin.path)
    module = ModuleType(f"lori_extension_{origin.sha256[:16]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and typing look up a class's module
    try:
        with registry.registering(origin):
            code = compile(content, str(file), "exec", dont_inherit=True)
            exec(code, module.__dict__)  # noqa: S102  # a user's own code, as the workspace's is
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ConfigError(f"{where}: {origin.path}: {_reason(error, file)}") from error
    _EXECUTED[origin] = registry.registered(origin)


def _reason(error: BaseException, file: Path) -> str:
    """Return the error and its line in the extension file, in one line of text."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        line = frame.lineno if frame.filename == str(file) else line
    text = " ".join(str(error).split()) or type(error).__name__
    kind = "" if isinstance(error, registry.TakenError) else f"{type(error).__name__}: "
    return f"line {line}: {kind}{text}; mend the file, or take it off the list"


def registered_kinds(paths: Sequence[str], workspace: Path) -> dict[str, set[str]]:
    """Return each extension file's path -> the kinds of registries that it adds entries to.

    Raises:
        ConfigError: as `loaded`.
    """
    with loaded(paths, KEY, workspace):
        origins = _load(named(paths, KEY, workspace), paths, KEY)
        return {o.path: {r.kind for r, _ in registry.registered(o)} for o in origins}
