"""Mask scopes (which entries of B are ranked together) and structures (which are kept together).

The scopes also parse a module's name into its layer, block and projection.
"""

from __future__ import annotations

import re

from lori_core.registries.mask import MASK_SCOPES, STRUCTURES, mask_scope, structure

#: The registries that this module fills.
SCOPES, KINDS = MASK_SCOPES, STRUCTURES
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


@mask_scope("model", "model", "all entries of the model are ranked together")
def whole_model(module: str) -> str:
    """Return one name for all modules."""
    return "model"


@mask_scope("module", "module", "attention and feed-forward entries are ranked separately")
def block_of(module: str) -> str:
    """Return `attention` or `mlp`, by the names of the module's parents."""
    return "attention" if _ATTENTION.search(module) else "mlp"


@mask_scope("projection", "projection", "each projection over all layers is ranked by itself")
def projection_of(module: str) -> str:
    """Return the projection's name: the last part of the module's (`q_proj`)."""
    return module.rsplit(".", 1)[-1]


@mask_scope("layer", "layer", "each layer is ranked by itself")
def layer_of(module: str) -> str:
    """Return the layer's number in a module's name, or `-` for a module outside the layers."""
    numbers: list[str] = re.findall(r"\.(\d+)\.", f".{module}.")
    return numbers[0] if numbers else "-"


@mask_scope("matrix", "matrix", "each matrix is ranked by itself")
def matrix(module: str) -> str:
    """Return the module's full name."""
    return module


@structure("none", "unstructured", "single entries")
def entries(rank: int) -> tuple[int, int]:
    """Return the size of an entry."""
    return 1, 1


@structure("row", "rows", "whole rows of B, one for each output")
def row(rank: int) -> tuple[int, int]:
    """Return the size of a whole row."""
    return 1, rank


@structure("block", "blocks", "blocks of 8 x 8")
def block(rank: int) -> tuple[int, int]:
    """Return the size of a block."""
    return 8, 8


@structure("group", "groups", "groups of 4 along the rank")
def group(rank: int) -> tuple[int, int]:
    """Return the size of a group."""
    return 1, 4
