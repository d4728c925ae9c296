"""From an output to the program that is run."""

from __future__ import annotations

from typing import Any

import pytest

from lori_core.evaluation.scoring.extraction import extract_code

SQUARES = "def check(candidate):\n    assert candidate(2) == 4\n"
PROMPT = "from typing import List\nimport math\n\n\ndef square(n: int) -> int:\n"
FUTURES = {
    "first": "from __future__ import annotations\ndef square(n: Absent): return n * n\n",
    "behind a docstring": (
        '"""Squares."""\n\n# by hand\nfrom __future__ import (\n    annotations, division,\n)\n'
        "import re\ndef square(n: Absent): return n * n\n"
    ),
    "fenced": "Here:\n```python\nfrom __future__ import annotations\n"
    "def square(n: Absent): return n * n\n```\n",
    "behind prose": "Here it is:\n\nfrom __future__ import annotations\n"
    "def square(n: Absent): return n * n\n",
}


def square_of(source: str, number: int) -> Any:
    namespace: dict[str, Any] = {"__name__": "candidate"}
    exec(compile(source, "<candidate>", "exec", dont_inherit=True), namespace)  # noqa: S102
    return namespace["square"](number)


@pytest.mark.parametrize("where", FUTURES)
def test_a_future_import_behind_a_prompt_with_imports(where: str) -> None:
    check = {"prompt": PROMPT, "entry_point": "square", "tests": SQUARES}
    candidate = extract_code(FUTURES[where], check).source
    assert square_of(candidate, 3) == 9


def test_a_future_import_in_a_wrong_place_stays_wrong() -> None:
    check = {"prompt": PROMPT, "entry_point": "square", "tests": SQUARES}
    answer = "import re\nfrom __future__ import annotations\ndef square(n): return n * n\n"
    with pytest.raises(KeyError):
        square_of(extract_code(answer, check).source, 3)
