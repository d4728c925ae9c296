"""Every merge method of this package: importing this module fills the registry."""

from __future__ import annotations

from lori_core.merging import (  # noqa: F401 - they register their methods
    merge_methods,
    on_safety,
    pruning,
    selective,
    shared_subspace,
)
from lori_core.registries.merge_method import MERGE_METHODS as MERGE_METHODS
