"""Field types and the base class of `params.yaml`'s sections, and their error messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lori_core.core.errors import nearest, shown

#: Names of folders in `artifacts/` that no task may have.
RESERVED = ("continual", "evaluations", "experiments", "merged")
ITEM_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]*"
#: The most characters of a name: file names, which add to it, have at most 255 bytes.
LONGEST_NAME = 100

# Numbers are strict: no text, no booleans, no 32.0 for 32. The bounds refuse values that no machine
# can handle before anything is computed.
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True, ge=-1e6, le=1e6)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, le=1e6)]
#: A fraction in [0, 1).
Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
#: A fraction in (0, 1].
Density = Annotated[float, Field(strict=True, gt=0, le=1)]
PositiveInt = Annotated[int, Field(strict=True, gt=0, le=2**31 - 1)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
#: A size that decides the memory of one step; a small number of repetitions or parallel jobs.
Size = Annotated[int, Field(strict=True, gt=0, le=2**20)]
Few = Annotated[int, Field(strict=True, gt=0, le=4096)]
Retries = Annotated[int, Field(strict=True, ge=0, le=100)]
Rank = Annotated[int, Field(strict=True, gt=0, le=2**16)]
Alpha = Annotated[int, Field(strict=True, gt=0, le=10**6)]
#: A seed that NumPy's generators accept.
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
#: Non-empty text.
Text = Annotated[str, Field(min_length=1, max_length=4096)]
#: A name that is used in a path or as a registry's key.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=LONGEST_NAME)]


def _short_parts(path: str) -> str:
    if any(len(part.encode(errors="replace")) > 255 for part in path.split("/")):
        raise ValueError(f"{shown(path)}: a name in a path has at most 255 bytes")
    return path


#: Text that may be a path.
PathText = Annotated[Text, AfterValidator(_short_parts)]


def _web_address(address: str) -> str:
    try:
        parts = urlsplit(address)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname)
        fits = fits and (parts.port is None or parts.port > 0) and not re.search(r"\s", address)
    except ValueError:  # an invalid port
        fits = False
    if not fits:
        raise ValueError(
            f"{shown(address)} is no address of a server; allowed are http://HOST and "
            "https://HOST, with a port and a path, as in http://127.0.0.1:8000/v1"
        )
    return address


_Listed = TypeVar("_Listed", bound=Sequence[Any])


def unique(values: _Listed) -> _Listed:
    """Return a list without repetitions as it is.

    Raises:
        ValueError: a value is listed twice.
    """
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"{shown(value)} is listed twice; remove one of the two")
    return values


_T = TypeVar("_T")
#: Values of which each is listed once.
Unique = Annotated[tuple[_T, ...], AfterValidator(unique)]
#: One or more values, each listed once.
Some = Annotated[tuple[_T, ...], Field(min_length=1), AfterValidator(unique)]
#: The URL of an HTTP server.
WebAddress = Annotated[Text, AfterValidator(_web_address)]


def _item_name(name: str) -> str:
    if len(name) > LONGEST_NAME:
        raise ValueError(
            f"a name of {len(name)} characters; at most {LONGEST_NAME} are allowed: {shown(name)}"
        )
    if not re.fullmatch(ITEM_PATTERN, name):
        fixed = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")
        hint = f"; write {fixed}" if re.fullmatch(ITEM_PATTERN, fixed) else ""
        raise ValueError(
            f"{name!r} cannot be a name: allowed are letters, digits, - and _ (a dot separates "
            f"keys){hint}"
        )
    if name in RESERVED:
        raise ValueError(f"{name!r} is the name of a folder of artifacts/; choose another name")
    return name


#: The name of a task or merge, which is used in paths, stage names and dotted keys.
ItemName = Annotated[str, AfterValidator(_item_name)]


class Strict(BaseModel):
    """The base class of sections: unknown keys are errors, numbers finite, instances immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


def first_error(error: ValidationError, root: type[BaseModel], prefix: str = "") -> str:
    """Return one line for the first validation error: key, value and what is allowed.

    Args:
        error: pydantic's error.
        root: the validated section, to look up the allowed keys.
        prefix: the key of that section in `params.yaml`.
    """
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "[key]"]
    if first["type"] == "extra_forbidden":
        where = _joined(prefix, [*_keys(first["loc"][:-1]), path[-1]])
        known = _known_keys(root, path[:-1])
        return f"{where}: unknown key{nearest(path[-1], known)} (allowed: {', '.join(known)})"
    where = _joined(prefix, _keys(first["loc"]))
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        return f"{where}: {text}" if where else text
    if first["type"] == "missing":
        return f"{where}: this key is needed"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{where}: {message}, got {shown(first['input'])}"


#: For a union, pydantic repeats the error for each member and adds the member's name to the path.
_MEMBER = re.compile(
    r"\[key\]|float|int|str|bool|NAME|LIST|SOURCE|COLUMN|SHARES|VALUES?|BOUND|constrained-\w+|(?:tuple|list|dict|literal)\[.*"
)


def _keys(path: Sequence[int | str]) -> list[str]:
    """Return the keys and list indices of an error's path."""
    return [str(part) for part in path if not (isinstance(part, str) and _MEMBER.fullmatch(part))]


def _joined(prefix: str, keys: Sequence[str]) -> str:
    parts = [key if len(key) <= LONGEST_NAME else f"{key[:LONGEST_NAME]}…" for key in keys]
    return ".".join([*([prefix] if prefix else []), *parts])


def _known_keys(root: type[BaseModel], path: Sequence[str]) -> list[str]:
    section: Any = root
    for part in path:
        field = getattr(section, "model_fields", {}).get(part)
        inner = field.annotation if field is not None else section
        section = _section_of(inner) or section
    return sorted(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        section = _section_of(part)
        if section is not None:
            return section
    return None
