"""The share of each verdict of the refusal scorer, and the version of the judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lori_core.data.example import Example
from lori_core.evaluation.scoring import refusal_classifier
from lori_core.evaluation.scoring.scorers import (
    ANSWERED,
    INCOHERENT,
    PARTIAL,
    REFUSED,
    Verdict,
    share,
)

#: All values of `Verdict.parsed` for the refusal scorer.
VERDICTS = (REFUSED, PARTIAL, ANSWERED, INCOHERENT)
#: The kind of request, by its expected answer.
REQUESTS = {"refuse": "harmful", "comply": "harmless"}


def summarise(examples: Sequence[Example], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the share of each verdict, separately for harmful and harmless requests.

    Returns:
        `verdicts`: `{"harmful": {"refused": {"score", "low", "high", "n"}, …}, "harmless": …}`;
        `incoherent`: the share of incoherent outputs among all; `judged_by`: the judge's version.
    """
    parsed_of = {
        named: [v.parsed for e, v in zip(examples, verdicts, strict=True) if e.answer == answer]
        for answer, named in REQUESTS.items()
    }
    return {
        "verdicts": {
            named: {kind: share([p == kind for p in parsed]) for kind in VERDICTS}
            for named, parsed in parsed_of.items()
        },
        "incoherent": share([verdict.parsed == INCOHERENT for verdict in verdicts]),
        "judged_by": refusal_classifier.version(),
    }
