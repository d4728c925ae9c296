"""The keys of a data source by its `kind`, and the keys that exclude one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lori_core.config.tasks import SourceSection

#: Keys of records, which are converted to examples.
_RECORDS = (
    "files",
    "split",
    "filter",
    "fields",
    "messages",
    "format",
    "scorer",
    "subset",
    "answer",
    "limit",
    "license",
)
#: The keys that have an effect, by `kind`. A made set brings its scorer, answers and licence.
KEYS = {
    "bundled": ("name", "limit"),
    "extension": ("name", "limit"),
    "local": ("path", *_RECORDS),
    "hub": ("name", "config", "revision", "columns", *_RECORDS),
}
#: Keys of `fields` that give each example what a key of the source gives all of them.
_SAME = {"scorer": "scorer", "kind": "subset", "answer": "answer"}


def check(source: SourceSection, where: str) -> None:
    """Refuse keys of a source that would have no effect.

    Args:
        source: a source that the user defined.
        where: the source's key, for messages.

    Raises:
        ValueError: names the key.
    """
    for key in type(source).model_fields:
        if key != "kind" and key not in KEYS[source.kind] and _is_set(source, key):
            *others, last = (kind for kind, keys in KEYS.items() if key in keys)
            kinds = f"{', '.join(others)} and {last}" if others else last
            raise ValueError(
                f"{where}.{key}: only {kinds} sources have this key, and it would "
                f"have no effect on this {source.kind} source; remove it"
            )
    for name, key in _SAME.items():
        if name in source.fields and _is_set(source, key):
            raise ValueError(
                f"{where}.{key}: fields.{name} already gives it for each example; remove one "
                "of the two"
            )
    if source.columns and source.config is not None:
        raise ValueError(
            f"{where}.config: has no effect beside columns, which read the repository's CSV files; "
            "remove one of the two"
        )
    if source.messages and source.answer is not None:
        raise ValueError(
            f"{where}.answer: conversations (messages) have no answer to score; remove one of the "
            "two"
        )


def _is_set(source: SourceSection, key: str) -> bool:
    """Return whether a key has another value than its default."""
    field = type(source).model_fields[key]
    return bool(getattr(source, key) != field.get_default(call_default_factory=True))
