"""A rule of the gate: the worst score of all tasks."""

from lori_core import RuleInput, gate_rule


@gate_rule(
    name="worst",
    label="worst score",
    about="the lowest share of right outputs of any task",
    least=0,  # the least and the most that the number can be: bounds outside are refused
    most=1,
)
def worst(at: RuleInput):
    """Return the number that at_least and at_most are compared with."""
    from lori_core.evaluation.gate_rules import rate

    rates = [rate(path, "all", at.confidence) for path in at.candidate.files.values()]
    return min(rates, key=lambda found: found.value or 0)
