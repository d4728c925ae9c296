"""Inside what the entries of B compete for a mask, and what of B is kept as a whole (METHOD: 2).

Also how a module's name says where in the model it stands.
"""

from __future__ import annotations

import re

from lori_core.registries.mask import MASK_SCOPES, STRUCTURES, mask_scope, structure

#: What is registered below, for whoever needs it done.
SCOPES, KINDS = MASK_SCOPES, STRUCTURES
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


@mask_scope("model", "model", "all of the model's entries compete")
def whole_model(module: str) -> str:
    """Return one name for all modules."""
    return "model"


@mask_scope("module", "module", "those of attention, and those of the feed-forward modules")
def block_of(module: str) -> str:
    """Return `attention` or `mlp`, after the folder names a module stands in."""
    return "attention" if _ATTENTION.search(module) else "mlp"


@mask_scope("projection", "projection", "those of one projection in all layers")
def projection_of(module: str) -> str:
    """Return the projection's own name: the last part (`q_proj`)."""
    return module.rsplit(".", 1)[-1]


@mask_scope("layer", "layer", "those of one layer")
def layer_of(module: str) -> str:
    """Return the layer's number in a module's name, or `-` for a module outside the layers."""
    numbers: list[str] = re.findall(r"\.(\d+)\.", f".{module}.")
    return numbers[0] if numbers else "-"


@mask_scope("matrix", "matrix", "those of one matrix")
def matrix(module: str) -> str:
    """Return the module's own name."""
    return module


@structure("none", "unstructured", "single entries")
def entries(rank: int) -> tuple[int, int]:
    """Return the size of an entry."""
    return 1, 1


@structure("row", "rows", "an output's row of B")
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
