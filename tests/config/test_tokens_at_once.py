from typing import Any

import pytest
from pydantic import ValidationError

from lori_core.config import TrainingSection
from lori_core.config.validation import first_error


@pytest.mark.parametrize("value", ["auto", 1, 4096, 2**24])
def test_auto_and_whole_numbers_are_allowed(value: Any) -> None:
    assert TrainingSection(tokens_at_once=value).tokens_at_once == value


@pytest.mark.parametrize("value", [0, -1, 0.5, 1.0, True, "16", "Auto", None, 2**24 + 1, [1], {}])
def test_everything_else_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainingSection(tokens_at_once=value)
    line = first_error(caught.value, TrainingSection, "training")
    assert line.startswith("training.tokens_at_once: ")
    assert line.endswith("; allowed are auto and a whole number from 1 to 16777216")


def test_a_number_cannot_go_with_a_sharded_base() -> None:
    assert TrainingSection(sharding="full").tokens_at_once == "auto"
    with pytest.raises(ValidationError, match="512 cannot be used with sharding: full"):
        TrainingSection(sharding="full", tokens_at_once=512)
