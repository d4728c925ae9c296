"""Match regular expressions from PEFT configurations against modules' names.

Python's matching of nested repetitions can take exponential time. Patterns without repetitions are
matched in this process, all others in a process with limits of time and memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from lori_core.core.processes import limited

#: How PEFT matches a pattern: against a suffix of whole name parts, or against the full name.
How = Literal["last parts", "whole"]
_FORMS: dict[How, str] = {"last parts": r"(.*\.)?({})$", "whole": r"{}"}
#: A full name as `re.escape` writes it, the form in this project's exports.
_EXACT = re.compile(r"\^(?:\w|\\[^\w\n])*")
#: Patterns without repetitions, groups or alternatives.
_PLAIN = re.compile(r"\^?(?:[\w.-]|\\[^\w\n])*")
_LONGEST = 10_000
#: More patterns than this are always matched in the limited process.
_FEW = 64

_PROGRAM = r"""
import re
answers = []
for pattern in data["patterns"]:
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        answers.append(str(error)[:200])
    else:
        match = expression.fullmatch if data["whole"] else expression.match
        answers.append([at for at, name in enumerate(data["names"]) if match(name)])
print(json.dumps(answers))
"""


class PatternError(ValueError):
    """A pattern is invalid or takes too long to match; the message says which and why."""


def matching(patterns: Iterable[str], names: Sequence[str], how: How) -> dict[str, set[str]]:
    """Return each pattern -> the names that it matches.

    Args:
        patterns: regular expressions.
        names: modules' names.
        how: the part of a name that a pattern must match.

    Raises:
        PatternError: a pattern is no regular expression, or takes too long to match.
    """
    matched: dict[str, set[str]] = {}
    all_names, rest = set(names), list[str]()
    for pattern in patterns:
        if len(pattern) > _LONGEST:
            raise PatternError(
                f"{pattern[:60]!r} has {len(pattern)} characters; a pattern has {_LONGEST} at most"
            )
        if _EXACT.fullmatch(pattern):
            matched[pattern] = all_names & {re.sub(r"\\(.)", r"\1", pattern[1:])}
        else:
            rest.append(pattern)
    plain = [pattern for pattern in rest if len(rest) <= _FEW and _PLAIN.fullmatch(pattern)]
    for pattern in plain:
        expression = re.compile(_FORMS[how].replace("{}", pattern))
        match = expression.fullmatch if how == "whole" else expression.match
        matched[pattern] = {name for name in names if match(name)}
    return matched | _match_limited([p for p in rest if p not in matched], names, how)


def _match_limited(patterns: list[str], names: Sequence[str], how: How) -> dict[str, set[str]]:
    if not patterns:
        return {}
    formed = [_FORMS[how].replace("{}", pattern) for pattern in patterns]
    data = {"patterns": formed, "names": list(names), "whole": how == "whole"}
    first = repr(patterns[0][:60])
    try:
        answers = limited.run(_PROGRAM, data)
    except limited.BeyondLimitsError as error:
        which = first if len(patterns) == 1 else f"{first} or one of {len(patterns) - 1} others"
        raise PatternError(
            f"{which} cannot be matched with {len(names)} names: {error}; write modules' names, or "
            "a pattern that repeats less"
        ) from None
    matched = {}
    for pattern, answer in zip(patterns, answers, strict=True):
        if isinstance(answer, str):
            raise PatternError(
                f"{pattern[:60]!r} is no regular expression ({answer}); write a module's name, or "
                "a pattern for names"
            )
        matched[pattern] = {names[index] for index in answer}
    return matched
