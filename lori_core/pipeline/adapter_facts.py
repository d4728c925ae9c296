"""The contents of a saved adapter's metrics file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lori_core.methods.finetuned_model import Trained


def adapter_facts(adapter: Trained, path: Path) -> dict[str, Any]:
    """Return a saved adapter's SHA-256, counts, content key and parents' content keys."""
    from lori_core.methods.finetuned_model import facts

    recipe = adapter.info.get("recipe", adapter.info)
    keys = {"content_key": recipe["content_key"], "parents": _parent_keys(recipe)}
    return facts(adapter, path) | keys


def _parent_keys(recipe: dict[str, Any]) -> list[str]:
    """Return the content keys of the adapters that an adapter was trained on or merged from."""
    parents = recipe["parents"]
    return [parent["content_key"] if isinstance(parent, dict) else parent for parent in parents]
