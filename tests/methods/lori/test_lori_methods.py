"""LoRI's methods: what of a run decides their result."""

from __future__ import annotations

import pytest

from lori_core.config import LoriSection
from lori_core.methods.catalogue import METHODS, NoOptions
from lori_core.methods.training_method import Job


@pytest.mark.parametrize("method", ["lori-d", "lori-s"])
def test_the_precision_of_the_saved_values_is_in_the_content_key(method: str) -> None:
    said = [
        METHODS[method](Job(LoriSection(values_dtype=dtype), NoOptions())).depends()
        for dtype in ("float32", "bfloat16")
    ]
    assert said[0] != said[1]
