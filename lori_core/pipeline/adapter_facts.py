"""What the metrics file of a saved adapter says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lori_core.methods.finetuned_model import Trained


def adapter_facts(adapter: Trained, path: Path) -> dict[str, Any]:
    """Return what identifies a saved adapter: its file's SHA-256 and counts, its recipe's keys."""
    from lori_core.methods.finetuned_model import facts

    recipe = adapter.info.get("recipe", adapter.info)
    kept = {"content_key": recipe["content_key"], "parents": _parent_keys(recipe)}
    return facts(adapter, path) | kept


def _parent_keys(recipe: dict[str, Any]) -> list[str]:
    """Return the content keys of what an adapter was trained on top of, or merged from."""
    parents = recipe["parents"]
    return [parent["content_key"] if isinstance(parent, dict) else parent for parent in parents]
