"""Extensions: Python files of a user that add what can be chosen by name (`lori_core.registries`).

A file is run as it was read: what its SHA-256 is taken of is what runs. It is trusted as the rest
of the workspace's code is.
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

#: The key of `params.yaml` that names extensions.
KEY = "extensions"
#: No code that people write is larger.
_LARGEST = 16 << 20
#: What was run, so that it is run once in a process.
_RAN: dict[ExtensionFile, list[tuple[registry.Registry[registry.Named], registry.Named]]] = {}


def named(paths: object, where: str, workspace: Path | None = None) -> list[Path]:
    """Return the files that a list names, each as a path to read.

    Args:
        paths: what was written.
        where: what stands first in an error, as `params.yaml: extensions`.
        workspace: the folder in which the files must lie; None for any, as at the command line.

    Raises:
        ConfigError: it is no list of paths, names one twice, or one that cannot be an extension.
    """
    if not isinstance(paths, Sequence) or isinstance(paths, str):
        raise ConfigError(f"{where}: expected a list of paths, as [{KEY}/mine.py], got {paths!r}")
    found: list[Path] = []
    for path in paths:
        if not isinstance(path, str) or not path or not path.isprintable():
            raise ConfigError(f"{where}: {shown(path)} is no path, as {KEY}/mine.py")
        file = Path(path) if workspace is None else _inside(path, where, workspace)
        if file.suffix != ".py":
            raise ConfigError(f"{where}: {path}: is no Python file; name one that ends in .py")
        if not file.is_file():
            raise ConfigError(f"{where}: {path}: no such file; write it, or take it off the list")
        if file.resolve() in (other.resolve() for other in found):
            raise ConfigError(f"{where}: {path}: is named twice; take one away")
        found.append(file)
    return found


def _inside(path: str, where: str, workspace: Path) -> Path:
    """Return a path of the workspace, written in the one way that DVC also writes it."""
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
    """Run a workspace's extensions, each once; meanwhile their names are seen and no others'.

    Afterwards the names stay registered, so that what was validated can be done.

    Raises:
        ConfigError: as `named` and `load`.
    """
    files = named(paths, where, workspace)
    names = [] if not files else [str(PurePosixPath(str(path))) for path in list(paths)]  # type: ignore[call-overload]
    with registry.seeing(frozenset(_load(files, names, where))):
        yield


def load(paths: Sequence[str], where: str) -> None:
    """Run extension files that a command names.

    Raises:
        ConfigError: a file is none, fails, or registers a name that is taken.
    """
    _load(named(paths, where), list(paths), where)


def _load(files: Sequence[Path], names: Sequence[str], where: str) -> list[ExtensionFile]:
    origins: list[ExtensionFile] = []
    for file, name in zip(files, names, strict=True):
        content = read_bytes(file, _LARGEST, ConfigError)
        origin = ExtensionFile(name, hashlib.sha256(content).hexdigest())
        with registry.seeing(frozenset(origins)):
            _run(origin, content, file, where)
        origins.append(origin)
    return origins


def _run(origin: ExtensionFile, content: bytes, file: Path, where: str) -> None:
    if origin in _RAN and all(found.holds(entry) for found, entry in _RAN[origin]):
        return
    registry.forget(origin.path)
    module = ModuleType(f"lori_extension_{origin.sha256[:16]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and typing look a class's module up
    try:
        with registry.registering(origin):
            code = compile(content, str(file), "exec", dont_inherit=True)
            exec(code, module.__dict__)  # noqa: S102  # a user's own code, as the workspace's is
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ConfigError(f"{where}: {origin.path}: {_reason(error, file)}") from error
    _RAN[origin] = registry.registered(origin)


def _reason(error: BaseException, file: Path) -> str:
    """Say in a line what failed and at which line of the file."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        line = frame.lineno if frame.filename == str(file) else line
    said = " ".join(str(error).split()) or type(error).__name__
    kind = "" if isinstance(error, registry.TakenError) else f"{type(error).__name__}: "
    return f"line {line}: {kind}{said}; mend the file, or take it off the list"


def deciding(paths: Sequence[str], workspace: Path) -> dict[str, set[str]]:
    """Return the kinds of what each extension file of a workspace registers, by its path.

    Raises:
        ConfigError: as `loaded`.
    """
    with loaded(paths, KEY, workspace):
        origins = _load(named(paths, KEY, workspace), paths, KEY)
        return {o.path: {found.kind for found, _ in registry.registered(o)} for o in origins}
