"""Read untrusted YAML within limits of size, depth, digits and aliases.

A text's events are checked before values are constructed, so memory use is bounded. YAML features
that no parameter needs are refused: tags, directives, several documents, dates, numbers that are
not finite, and keys that are not strings.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from lori_core.core.errors import ConfigError, InputError, shown
from lori_core.core.files import input_files

#: The most bytes of a hand-written file.
MOST_BYTES = 256 << 10
#: The deepest allowed nesting of lists and mappings.
MOST_DEPTH = 32
#: The most values of a hand-written file, counting the values that aliases repeat.
MOST_VALUES = 20_000
#: An integer must fit into 64 bits.
LARGEST = 2**63 - 1
_MOST_DIGITS = 64
_DIGITS = re.compile(r"[-+]?(?:0[xob])?[0-9a-fA-F_]+")
#: Control characters, except tab and line ends, and unpaired surrogates.
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_TEXT_OF_BOM = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x00\x00\xfe\xff": "UTF-32",
}


def read_text(path: Path, most: int = MOST_BYTES, error: type[InputError] = ConfigError) -> str:
    """Return the text of a regular file in UTF-8, without a byte order mark.

    Raises:
        InputError: of the type `error`: missing, not a file, too large, or not UTF-8.
    """
    return decoded(input_files.read_bytes(path, most, error), str(path), error)


def decoded(content: bytes, where: str, error: type[InputError] = ConfigError) -> str:
    """Decode a file's bytes as UTF-8; `where` begins messages, errors are those of `read_text`."""
    for mark, name in _TEXT_OF_BOM.items():
        if content.startswith(mark):
            raise error(f"{where}: is {name} text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        raise error(
            f"{where}:{line}: not UTF-8 text (byte {fault.start}); save it as UTF-8"
        ) from None


class YAMLFaultError(ValueError):
    """A text is not YAML, or exceeds a limit.

    Attributes:
        line: the line of the fault, counted from 1; None if unknown.
    """

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line

    def at(self, where: str) -> str:
        """Return the fault's location, as `params.yaml:7`."""
        return where if self.line is None else f"{where}:{self.line}"


def load(
    text: str, where: str, loader: Callable[[str], Any], error: type[InputError] = ConfigError
) -> Any:
    """Load YAML within the limits of a hand-written file.

    Args:
        text: the YAML.
        where: the file or option that messages begin with.
        loader: parses the text, as ruamel.yaml's or PyYAML's loaders do.
        error: the type of errors.

    Returns:
        The loader's result.

    Raises:
        InputError: of the type `error`: the text is not valid YAML, or exceeds a limit.
    """
    try:
        return loads(text, loader)
    except YAMLFaultError as fault:
        raise error(f"{fault.at(where)}: {fault}") from None


def loads(
    text: str,
    loader: Callable[[str], Any],
    *,
    most: int = MOST_VALUES,
    tags: Collection[str] = (),
) -> Any:
    """Load YAML within limits.

    Args:
        text: the YAML.
        loader: parses the text.
        most: the most values.
        tags: the allowed tags.

    Returns:
        The loader's result.

    Raises:
        YAMLFaultError: the text is not valid YAML, or exceeds a limit.
    """
    import yaml
    from ruamel.yaml.error import YAMLError

    try:
        _Scan(most, tags).run(text)
        return loader(text)
    except YAMLFaultError:
        raise
    except (YAMLError, yaml.YAMLError) as fault:
        mark = getattr(fault, "problem_mark", None)
        why = getattr(fault, "problem", None) or str(fault).splitlines()[0]
        raise YAMLFaultError(f"not valid YAML ({why})", mark.line + 1 if mark else None) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
        raise YAMLFaultError(f"not valid YAML ({fault})") from None


class _Scan:
    """Checks the parser's events of a text against the limits, before values are constructed."""

    def __init__(self, most: int, tags: Collection[str]) -> None:
        self._most, self._tags = most, tags
        #: The number of values so far; (that number at its beginning, anchor) of each open
        #: list or mapping.
        self._values = 0
        self._open: list[tuple[int, str | None]] = []
        #: The number of values that an alias to each anchor repeats.
        self._anchors: dict[str, int] = {}

    def run(self, text: str) -> None:
        import yaml

        control = _NO_TEXT.search(text)
        if control:
            line = text.count("\n", 0, control.start()) + 1
            raise YAMLFaultError(
                f"holds the character {control[0]!a}, which is no text; remove it", line
            )
        documents = 0
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                self._document(event, documents)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()

    def _refuse(self, event: Any, why: str) -> None:
        raise YAMLFaultError(why, event.start_mark.line + 1)

    def _document(self, event: Any, number: int) -> None:
        if number > 1:
            self._refuse(event, "a second document begins (---); one file is one document")
        if event.version or event.tags:
            self._refuse(event, "directives (%YAML, %TAG) are not read here; remove the line")

    def _add(self, event: Any, values: int) -> None:
        self._values += values
        if self._values > self._most:
            self._refuse(
                event,
                f"more than {self._most:,} values, with what aliases (*name) repeat; write less",
            )

    def _tag(self, event: Any) -> None:
        if event.tag and event.tag not in self._tags:
            self._refuse(event, f"the tag {shown(event.tag)} is not read here; remove it")

    def _alias(self, event: Any) -> None:
        if any(anchor == event.anchor for _, anchor in self._open):
            self._refuse(event, f"*{event.anchor}: a list or section holds itself; write it out")
        self._add(event, self._anchors.get(event.anchor, 1))

    def _scalar(self, event: Any) -> None:
        self._tag(event)
        self._add(event, 1)
        if event.anchor:
            self._anchors[event.anchor] = 1
        number = event.implicit[0] and _DIGITS.fullmatch(event.value)
        if number and len(event.value) > _MOST_DIGITS:
            self._refuse(
                event,
                f"a number of {len(event.value):,} digits ({event.value[:12]}…); a whole number "
                "has 19 at most; put it in quotes if it is text",
            )

    def _begin(self, event: Any) -> None:
        self._tag(event)
        self._add(event, 1)
        self._open.append((self._values - 1, event.anchor))
        if len(self._open) > MOST_DEPTH:
            self._refuse(event, f"lists and sections are nested more than {MOST_DEPTH} deep")

    def _end(self) -> None:
        before, anchor = self._open.pop()
        if anchor:
            self._anchors[anchor] = self._values - before


def plain(values: Any, where: str, error: type[InputError] = ConfigError) -> Any:
    """Return a loader's result as plain dicts, lists, strings, numbers, booleans and None.

    Args:
        values: the result of `load` or `loads`, which have checked it for recursion.
        where: the beginning of messages, as `params.yaml: `.
        error: the type of errors.

    Raises:
        InputError: of the type `error`: a date, bytes or a set; a number that is not finite or too
            large; text with control characters; a key that is not a string.
    """
    return _Plain(error).of(values, where, "")


class _Plain:
    def __init__(self, error: type[InputError]) -> None:
        from ruamel.yaml.scalarbool import ScalarBoolean

        #: ruamel.yaml's type of a boolean with an anchor, a subclass of int.
        self._anchored_bool = ScalarBoolean
        self._error = error

    def of(self, value: Any, where: str, key: str) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, self._anchored_bool):
            return bool(value)
        if isinstance(value, str):
            return self._text(value, where, key)
        if isinstance(value, int):
            if abs(value) > LARGEST:
                raise self._at(where, key, f"{shown(int(value))} does not fit into 64 bits")
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise self._at(where, key, f"{float(value)} is no finite number; write one")
            return float(value)
        if isinstance(value, Mapping):
            return {
                self._key(name, where, key): self.of(inner, where, f"{key}.{name}" if key else name)
                for name, inner in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.of(inner, where, f"{key}[{n}]") for n, inner in enumerate(value)]
        raise self._at(
            where, key, f"{_kind(value)} is not read here; put it in quotes if it is text"
        )

    def _at(self, where: str, key: str, why: str) -> InputError:
        return self._error(f"{where}{key}: {why}" if key else f"{where}{why}")

    def _key(self, name: Any, where: str, key: str) -> str:
        if not isinstance(name, str):
            place = f"{key}.{name!r}" if key else repr(name)
            raise self._error(f"{where}{place}: a key must be text; put it in quotes")
        return self._text(name, where, key)

    def _text(self, text: str, where: str, key: str) -> str:
        control = _NO_TEXT.search(text)
        if control:
            raise self._at(
                where,
                key,
                f"{shown(text)} holds the character {control[0]!a}, which is no text; remove it",
            )
        return str(text)


def _kind(value: Any) -> str:
    if isinstance(value, (datetime.date, datetime.datetime)):
        return f"{value}, a date,"
    if isinstance(value, (bytes, bytearray)):
        return f"{shown(bytes(value))} (bytes)"
    return f"{shown(value)} ({type(value).__name__})"
