"""Select records by the values of their fields, and divide them by a column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from lori_core.config import Bound, SourceSection
from lori_core.config.templates import Field, read_template
from lori_core.core.errors import DataError, shown
from lori_core.data.sources.split_files import NAMES
from lori_core.data.text import value_at

#: Record with its split and location.
Located = tuple[str, str, Any]
_SPLIT_OF = {name: split for split, names in NAMES.items() for name in names}


def select(records: Iterable[Located], source: SourceSection, where: str) -> Iterator[Located]:
    """Yield the records that `filter` keeps, with the split that `split` names.

    Args:
        records: (split, location, record) of each record of the source.
        source: the source.
        where: the source's key, for errors.

    Raises:
        DataError: a field of `filter` or the column of `split` is missing in a record, a bound is
            set for a value that is not a number, the column holds no split's name, or no record is
            kept.
    """
    conditions = [(_field(name), condition) for name, condition in source.filter.items()]
    column = _field(source.split) if isinstance(source.split, str) else None
    read = kept = 0
    for split, place, record in records:
        read += 1
        if all(_fits(field, condition, record, place) for field, condition in conditions):
            kept += 1
            yield (split if column is None else _split(column, record, place)), place, record
    if read and not kept:
        raise DataError(f"{where}.filter: none of the {read:,} records fits all conditions")


def _field(name: str) -> Field:
    (field,) = read_template(name)
    assert isinstance(field, Field)  # noqa: S101 - `SourceSection.check` refuses templates
    return field


def _value(field: Field, record: Any, key: str, place: str) -> Any:
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected a JSON object, got {type(record).__name__}")
    return value_at(field, record, f"field {field.name!r} for {key!r}", place)


def _split(column: Field, record: Any, place: str) -> str:
    name = _value(column, record, "split", place)
    split = _SPLIT_OF.get(name.strip().lower()) if isinstance(name, str) else None
    if split is None:
        raise DataError(
            f"{place}: field {column.name!r} for 'split' is {shown(name)}; allowed are "
            f"{', '.join(_SPLIT_OF)}"
        )
    return split


def _fits(field: Field, condition: Any, record: Any, place: str) -> bool:
    value = _value(field, record, "filter", place)
    if isinstance(condition, Bound):
        number = _number(value)
        if number is None:
            raise DataError(
                f"{place}: field {field.name!r} for 'filter' is {shown(value)}, and at_least and "
                "at_most need a number"
            )
        low, high = condition.at_least, condition.at_most
        return (low is None or number >= low) and (high is None or number <= high)
    wanted = condition if isinstance(condition, list) else [condition]
    return any(_equal(value, each) for each in wanted)


def _number(value: Any) -> float | None:
    """Return a number, also one that is written as text, as all values of a CSV file are."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number == number else None


def _equal(value: Any, wanted: Any) -> bool:
    """Return whether a value is the one that params.yaml names; text may write it out."""
    if isinstance(value, str) and not isinstance(wanted, str):
        if wanted is None or isinstance(wanted, bool):
            return value.strip().lower() == ("" if wanted is None else str(wanted).lower())
        return bool(_number(value) == wanted)
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)
