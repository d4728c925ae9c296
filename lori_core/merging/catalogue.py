"""Every merge method of this package: importing this module fills the registry."""

from __future__ import annotations

from lori_core.merging import merge_methods, pruning, shared_subspace  # noqa: F401 - they register
from lori_core.registries.merge_method import MERGE_METHODS as MERGE_METHODS
