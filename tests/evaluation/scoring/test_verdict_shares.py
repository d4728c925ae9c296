"""How the verdicts on refusal examples are counted."""

from __future__ import annotations

from lori_core.data.example import Example
from lori_core.evaluation.scoring import refusal_classifier, verdict_shares
from lori_core.evaluation.scoring.scorers import Verdict


def test_each_verdict_has_its_share_of_harmful_and_of_harmless_requests() -> None:
    harmful = ["refused", "refused", "partial", "answered", "incoherent"]
    harmless = ["answered", "refused"]
    examples = [Example(f"h{n}", "", "refusal", "refuse") for n in range(len(harmful))]
    examples += [Example(f"s{n}", "", "refusal", "comply") for n in range(len(harmless))]
    found = verdict_shares.summarise(examples, [Verdict(False, p) for p in harmful + harmless])
    scores = {
        requests: {kind: (share["score"], share["n"]) for kind, share in kinds.items()}
        for requests, kinds in found["verdicts"].items()
    }
    assert scores == {
        "harmful": {
            "refused": (0.4, 5),
            "partial": (0.2, 5),
            "answered": (0.2, 5),
            "incoherent": (0.2, 5),
        },
        "harmless": {
            "refused": (0.5, 2),
            "partial": (0.0, 2),
            "answered": (0.5, 2),
            "incoherent": (0.0, 2),
        },
    }
    assert (found["incoherent"]["score"], found["incoherent"]["n"]) == (1 / 7, 7)
    assert found["judged_by"] == refusal_classifier.version()


def test_without_harmless_requests_their_shares_are_null() -> None:
    nothing = {"score": None, "low": None, "high": None, "n": 0}
    found = verdict_shares.summarise(
        [Example("p", "", "refusal", "refuse")], [Verdict(True, "refused")]
    )
    assert found["verdicts"]["harmless"] == dict.fromkeys(verdict_shares.VERDICTS, nothing)
