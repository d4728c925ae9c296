"""What the sections of `params.yaml` are made of, and one line for the first thing wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lori_core.errors import nearest

#: Folders of `artifacts/` that are no task's.
RESERVED = ("continual", "evaluations", "experiments", "merged")
ITEM_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]*"

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def _item_name(name: str) -> str:
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


#: The name of a task or merge: a part of paths, of stage names and of dotted keys.
ItemName = Annotated[str, AfterValidator(_item_name)]


class Strict(BaseModel):
    """A section: unknown keys are errors, numbers finite; values do not change after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


def first_error(error: ValidationError, root: type[BaseModel], prefix: str = "") -> str:
    """Return one line for the first thing that is wrong: path, value, what is allowed."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        where = ".".join(part for part in path if part != "[key]")
        return f"{where}: {text}" if where else text
    # A union repeats the error for each member and adds the member's name: keep the real keys.
    shown = ".".join(
        [prefix] * bool(prefix) + [part for part in path if part.islower() and part != "float"]
    )
    if first["type"] == "extra_forbidden":
        known = _known_keys(root, path[:-1])
        return f"{shown}: unknown key{nearest(path[-1], known)} (allowed: {', '.join(known)})"
    if first["type"] == "missing":
        return f"{shown}: this key is needed"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{shown}: {message}, got {first['input']!r}"


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
        found = _section_of(part)
        if found is not None:
            return found
    return None
