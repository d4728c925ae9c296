"""The gate promotes what is worse by its margin no more often than its confidence allows.

Of n items a candidate loses b and gains c, trinomial; what passes is enumerated, not sampled.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from lori_core.config import GateSection
from lori_core.core.files.atomic import write_jsonl
from lori_core.evaluation.bounded_mean import items_needed, p_value
from lori_core.evaluation.gate import RuleResult, Scored, decide

LINEAGE = Path(__file__).parents[2] / "docs" / "lineage.md"
MOST_GAINS = 0.2


def judged(
    folder: Path,
    lost: int,
    gained: int,
    n: int,
    margin: float,
    confidence: float = 0.95,
    samples: int = 1,
) -> RuleResult:
    """Return what the gate finds where `lost` of n items got worse and `gained` got better.

    Where there are several samples of an item, only its first one changes.
    """
    files = {}
    for name, first in (("champion", False), ("candidate", True)):
        right = [not first] * lost + [first] * gained + [True] * (n - lost - gained)
        files[name] = folder / f"{name}.jsonl"
        rows = [
            {"id": str(number), "sample": sample, "answer": "7", "parsed": "7", "correct": correct}
            for number, flag in enumerate(right)
            for sample, correct in enumerate([flag] + [True] * (samples - 1))
        ]
        write_jsonl(files[name], rows)
    section = GateSection(margin=margin, confidence=confidence, least_items=1)
    candidate, champion = (Scored(n, {"math": files[n]}) for n in ("candidate", "champion"))
    (finding,) = decide(candidate, champion, None, section).findings
    return finding


def passes(lost: int, gained: int, n: int, margin: float, confidence: float) -> bool:
    """Whether the one-sided p-value of "worse by the margin" is small enough."""
    changes = np.repeat([-1.0, 0.0, 1.0], [lost, n - lost - gained, gained])
    return p_value(changes, -margin, -1) <= 1 - confidence


@cache
def most_lost(n: int, margin: float, confidence: float, gains: float = MOST_GAINS) -> Any:
    """Return for each number of gains the largest number of losses that passes, -1 for none.

    Numbers of gains that are never seen at a rate of `gains` are left out.
    """
    most_gained = int(min(n, n * gains + 7 * np.sqrt(n * gains) + 5))
    found, lost = [], -1
    for gained in range(most_gained + 1):
        lost = min(lost, n - gained)
        while lost + 1 <= n - gained and passes(lost + 1, gained, n, margin, confidence):
            lost += 1
        found.append(lost)
    return np.array(found)


def chance(n: int, margin: float, confidence: float, losses: Any, gains: Any) -> Any:
    """Return how often items lost at one rate and gained at another pass: exact sums, by gains."""
    most = most_lost(n, margin, confidence, float(gains.max()))[:, None]
    gained = np.arange(len(most))[:, None]
    rates = np.minimum(losses / (1 - gains), 1)
    below = np.where(most < 0, 0.0, binom.cdf(most, n - gained, rates))
    return (binom.pmf(gained, n, gains) * below).sum(axis=0)


def worst_chance(
    n: int, margin: float, confidence: float = 0.95, most_gains: float = MOST_GAINS
) -> float:
    """Return how often a candidate passes that is worse by the margin, the most over the gains."""
    gains = np.linspace(0, np.sqrt(most_gains), 81) ** 2
    return float(chance(n, margin, confidence, gains + margin, gains).max())


@pytest.mark.parametrize("n", [30, 59, 100, 149, 300, 600, 1500])
def test_what_is_worse_by_the_margin_passes_as_rarely_as_the_confidence_says(n: int) -> None:
    for margin in (0.02, 0.03, 0.05, 0.07, 0.10):
        assert worst_chance(n, margin) <= 0.05


@pytest.mark.parametrize("confidence", [0.6, 0.8, 0.9, 0.99, 0.999])
def test_any_confidence_holds(confidence: float) -> None:
    for n in (30, 45, 100, 300):
        for margin in (0, 0.02, 0.05, 0.10, 0.3):
            assert worst_chance(n, margin, confidence) <= 1 - confidence


@pytest.mark.parametrize("confidence", [0.6, 0.95, 0.995])
def test_the_error_is_bounded_for_all_rates_of_gains(confidence: float) -> None:
    for n in (1, 2, 3, 4, 5, 7, 9, 12, 16, 40):
        for margin in (0, 0.02, 0.15, 0.3, 0.5):
            most_gains = (1 - margin) / 2  # then nothing stays as it was
            # One item may pass just as often as is allowed: a margin of 0.4 at 60 %.
            error = worst_chance(n, margin, confidence, most_gains)
            assert error <= (1 - confidence) * (1 + 1e-12)


@pytest.mark.parametrize(("n", "margin", "gained"), [(30, 0.1, 0), (100, 0.05, 4), (300, 0.02, 7)])
def test_the_gate_passes_exactly_the_enumerated_cases(
    tmp_path: Path, n: int, margin: float, gained: int
) -> None:
    most = int(most_lost(n, margin, 0.95)[gained])
    assert most >= 0
    last, next_one = (judged(tmp_path, lost, gained, n, margin) for lost in (most, most + 1))
    assert (last.passed, next_one.passed) == (True, False)
    assert last.numbers["low"] >= -margin > next_one.numbers["low"]
    assert (last.numbers["lost"], last.numbers["gained"]) == (most, gained)


@pytest.mark.parametrize(
    ("n", "margin"), [(30, 0.05), (100, 0.05), (100, 0.10), (30, 0.02), (149, 0.02), (60, 0.05)]
)
def test_without_gains_it_passes_as_rarely_as_it_says(
    tmp_path: Path, n: int, margin: float
) -> None:
    """Without gains the items lost are Binomial(n, margin) at the margin."""
    lost = 0
    while judged(tmp_path, lost, 0, n, margin).passed:
        lost += 1
    assert binom.cdf(lost - 1, n, margin) <= 0.05 < binom.cdf(lost, n, margin)


def test_fewer_losses_more_gains_or_a_wider_margin_never_refuse() -> None:
    n, margins = 18, (0.0, 0.01, 0.05, 0.2, 0.6)
    found = np.full((n + 2, n + 2, len(margins)), np.nan)
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            changes = np.repeat([-1.0, 0.0, 1.0], [lost, n - lost - gained, gained])
            found[lost, gained] = [p_value(changes, -margin, -1) for margin in margins]
    slack = 1e-11
    assert not (found[:-1] > found[1:] + slack).any()
    assert not (found[:, 1:] > found[:, :-1] + slack).any()
    assert not (found[:, :, 1:] > found[:, :, :-1] + slack).any()


def test_items_without_a_change_have_an_interval(tmp_path: Path) -> None:
    found = judged(tmp_path, 0, 0, 30, 0.1)
    end = 1 - 0.05 ** (1 / 30)  # of items lost at this rate none is lost in 5 % of the test sets
    assert (found.numbers["low"], found.numbers["high"]) == pytest.approx((-end, end))
    assert found.passed
    assert "with 95 % confidence not below -9.51 points (allowed -10; p 1.000)" in found.text


@pytest.mark.parametrize(
    ("n", "margin", "confidence", "said"),
    [
        (30, 0.02, 0.95, "2.0 points are lost at 95 %; at least 149 are needed"),
        (58, 0.05, 0.95, "5.0 points are lost at 95 %; at least 59 are needed"),
        (30, 0.0125, 0.9, "1.25 points are lost at 90 %; at least 184 are needed"),
        (43, 0.1, 0.99, "10.0 points are lost at 99 %; at least 44 are needed"),
    ],
)
def test_items_that_cannot_show_the_margin_are_told_how_many_are_needed(
    tmp_path: Path, n: int, margin: float, confidence: float, said: str
) -> None:
    found = judged(tmp_path, 0, 0, n, margin, confidence)
    assert not found.passed
    assert found.text.endswith(f"; {n} items cannot show that no more than {said}")
    needed = int(said.split()[-3])
    assert not judged(tmp_path, 0, 0, needed - 1, margin, confidence).passed
    assert judged(tmp_path, 0, 0, needed, margin, confidence).passed


def test_few_items_suffice_for_a_large_difference(tmp_path: Path) -> None:
    better = judged(tmp_path, 0, 10, 30, 0.02)
    assert better.passed
    worse = judged(tmp_path, 20, 0, 30, 0.02)
    assert worse.text.endswith("; it is worse")


def test_a_margin_of_0_passes_what_is_shown_to_be_better(tmp_path: Path) -> None:
    same = judged(tmp_path, 0, 0, 1500, 0)
    assert not same.passed
    assert "(allowed +0; " in same.text
    assert same.text.endswith(
        "; a margin of 0 passes only what is shown to be better: no number of items can show "
        "that nothing is lost"
    )
    # McNemar's exact one-sided p-value: 1/32 of five gains, 1/16 of four.
    assert judged(tmp_path, 0, 5, 30, 0).passed
    assert not judged(tmp_path, 0, 4, 30, 0).passed
    assert judged(tmp_path, 5, 0, 30, 0).text.endswith("; it is worse")


def test_several_samples_of_an_item_count_as_one_item(tmp_path: Path) -> None:
    """No more is known of 30 items by asking each four times, if nothing changes."""
    found = judged(tmp_path, 0, 0, 30, 0.02, samples=4)
    assert found.numbers["n"] == 30
    assert found.numbers["low"] == pytest.approx(-(1 - 0.05 ** (1 / 30)))
    assert found.text.endswith("at least 149 are needed")
    # Six items that lose one sample of four cost less than six lost items, and more than nothing.
    whole, part = (judged(tmp_path, 6, 0, 100, 0.1, samples=count) for count in (1, 4))
    assert whole.value == pytest.approx(-0.06)
    assert part.value == pytest.approx(-0.015)
    assert not whole.passed
    assert part.passed


def test_shares_hold_the_confidence_too() -> None:
    """Items answered eight times each, worse by the margin: simulated, with a fixed seed."""
    random, margin, n = np.random.default_rng(5), 0.05, 60
    for spread in (0.3, 3.0):
        rates = random.beta(0.7 * spread, 0.3 * spread, size=(1000, n))
        worse = rates * (1 - margin / 0.7)
        ours, theirs = (random.binomial(8, rate) / 8 for rate in (worse, rates))
        passed = sum(p_value(row, -margin, -1) <= 0.05 for row in ours - theirs)
        assert passed <= binom.ppf(0.999, 1000, 0.05)


ROW = re.compile(r"^\| (\d+) \| (\d+) % \| [\d.]+ \| [\d.]+ \| (.+) \|$", re.MULTILINE)


def test_the_table_of_the_documentation_is_the_enumeration() -> None:
    rows = ROW.findall(LINEAGE.read_text(encoding="utf-8"))
    assert len(rows) == 14
    for items, points, numbers in rows:
        n, margin = int(items), int(points) / 100
        changed = np.array([0, 0.02, 0.05, 0.1, 0.2])
        power = chance(n, margin, 0.95, changed / 2, changed / 2)
        expected = [f"{worst_chance(n, margin):.3f}", str(items_needed(margin, 0.95))]
        assert numbers.split(" | ") == expected + [f"{100 * share:.0f}" for share in power]
