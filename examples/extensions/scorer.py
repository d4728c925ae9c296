"""A scorer: an output is right if it has at least half of the words of the answer."""

from lori_core import Example, Verdict, scorer


@scorer(
    name="words",
    label="word overlap",
    about="at least half of the answer's words are in the output",
    metric="word_overlap",  # the share of right outputs, in metrics and tables
    meaning="share of outputs with half of the answer's words",
    max_new_tokens=32,
)
def words(example: Example, output: str) -> Verdict:
    """Judge one output; only the output is read, never the prompt."""
    wanted = set(example.answer.lower().split())
    found = wanted & set(output.lower().split())
    right = 2 * len(found) >= len(wanted)
    return Verdict(right, " ".join(sorted(found)), "" if right else "too few of the words")
