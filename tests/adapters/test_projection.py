"""The projection against its documentation: what docs/format.md says is written anew here."""

import math
import re
import struct
from pathlib import Path

import documented
import pytest
import torch

from lori_core.adapters import projection

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"
VECTOR = re.compile(
    r"^\| (\d+) \| `(.*)` \| `(.*)` \| (\d+) \| (\d+) \| (.*) \| `(.{64})` \|$", re.MULTILINE
)
VECTORS = VECTOR.findall(FORMAT.read_text(encoding="utf-8"))


def test_the_document_has_vectors() -> None:
    assert len(VECTORS) == 4


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector[2]))
def test_the_documented_vectors_are_what_is_drawn_and_what_is_documented(
    vector: tuple[str, ...],
) -> None:
    key, module, values, sha256 = vector[1], vector[2], vector[5], vector[6]
    seed, d_in, rank = (int(vector[place]) for place in (0, 3, 4))
    drawn = projection.draw(seed, key, module, rank, d_in)
    assert (drawn.shape, drawn.dtype) == ((rank, d_in), torch.float32)
    first = [struct.pack(">f", value).hex() for value in drawn.reshape(-1)[:4].tolist()]
    assert values == " ".join(f"`{bits}`" for bits in first)
    assert projection.fingerprint([(module, drawn)]) == sha256
    written = documented.projection(seed, key, module, rank, d_in)
    assert written == drawn.reshape(-1).tolist()
    assert documented.block_sha256([(module, rank, d_in, written)]) == sha256


def test_the_largest_value_is_the_bound_itself() -> None:
    drawn = projection.draw(0, "edge", "m1114873", rank=2, d_in=4)
    assert drawn[0, 3] == 0.5
    assert drawn.abs().max() == 0.5


def test_a_golden_matrix_never_changes() -> None:
    drawn = {"m": projection.draw(42, "math", "model.layers.0.mlp.up_proj", rank=32, d_in=576)}
    assert projection.fingerprint(drawn.items()) == GOLDEN


GOLDEN = "a1213059bfb0dadae05651ecee2823c33c51693ded3ce017e1d3332f4cd112c5"


def test_entries_are_uniform_inside_the_kaiming_bound() -> None:
    bound = 1 / math.sqrt(400)
    drawn = projection.draw(0, "task", "module", rank=64, d_in=400)
    assert drawn.abs().max() <= bound
    assert abs(float(drawn.mean())) < 4 * bound / math.sqrt(3 * drawn.numel())
    assert float(drawn.var()) == pytest.approx(bound**2 / 3, rel=0.03)


@pytest.mark.parametrize(
    "other", [(43, "math", "m"), (42, "code", "m"), (42, "math", "n"), (42, "mat", "hm")]
)
def test_any_part_of_the_key_changes_all_of_a(other: tuple[int, str, str]) -> None:
    first = projection.draw(42, "math", "m", 8, 16)
    second = projection.draw(*other, 8, 16)
    assert not bool((first == second).any())


def test_independent_projections_are_nearly_orthogonal() -> None:
    first = projection.draw(42, "math", "m", 32, 4096)
    second = projection.draw(42, "code", "m", 32, 4096)
    norm = float((first @ second.T).norm())
    # E‖A_s A_tᵀ‖² = r²/(9 d_in) for entries of variance 1/(3 d_in).
    assert norm == pytest.approx(32 / (3 * math.sqrt(4096)), rel=0.1)
