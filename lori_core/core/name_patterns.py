"""Regular expressions out of PEFT's configurations, matched against modules' names.

Python's matching of an expression that repeats what repeats can take for ever. What has no
repetition is matched here; anything else in a process with limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from lori_core.core.processes import limited

#: How PEFT matches a pattern: with the last parts of a name, or with all of it.
How = Literal["last parts", "whole"]
_FORMS: dict[How, str] = {"last parts": r"(.*\.)?({})$", "whole": r"{}"}
#: A whole name as `re.escape` writes it, as this project's exports hold them.
_EXACT = re.compile(r"\^(?:\w|\\[^\w\n])*")
#: Patterns without repetitions, groups or choices.
_PLAIN = re.compile(r"\^?(?:[\w.-]|\\[^\w\n])*")
_LONGEST = 10_000
#: More patterns than these are matched with limits, whatever they are.
_FEW = 64

_PROGRAM = r"""
import re
found = []
for pattern in given["patterns"]:
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        found.append(str(error)[:200])
    else:
        match = expression.fullmatch if given["whole"] else expression.match
        found.append([at for at, name in enumerate(given["names"]) if match(name)])
print(json.dumps(found))
"""


class PatternError(ValueError):
    """A pattern that cannot be used; the message says which and why."""


def matching(patterns: Iterable[str], names: Sequence[str], how: How) -> dict[str, set[str]]:
    """Return the names that each pattern matches.

    Args:
        patterns: regular expressions.
        names: of modules.
        how: with what a pattern must match.

    Raises:
        PatternError: for one that is no regular expression, or that takes too long.
    """
    found: dict[str, set[str]] = {}
    there, rest = set(names), list[str]()
    for pattern in patterns:
        if len(pattern) > _LONGEST:
            raise PatternError(
                f"{pattern[:60]!r} has {len(pattern)} characters; a pattern has {_LONGEST} at most"
            )
        if _EXACT.fullmatch(pattern):
            found[pattern] = there & {re.sub(r"\\(.)", r"\1", pattern[1:])}
        else:
            rest.append(pattern)
    plain = [pattern for pattern in rest if len(rest) <= _FEW and _PLAIN.fullmatch(pattern)]
    for pattern in plain:
        expression = re.compile(_FORMS[how].replace("{}", pattern))
        match = expression.fullmatch if how == "whole" else expression.match
        found[pattern] = {name for name in names if match(name)}
    return found | _in_limits([one for one in rest if one not in found], names, how)


def _in_limits(patterns: list[str], names: Sequence[str], how: How) -> dict[str, set[str]]:
    if not patterns:
        return {}
    formed = [_FORMS[how].replace("{}", pattern) for pattern in patterns]
    given = {"patterns": formed, "names": list(names), "whole": how == "whole"}
    first = repr(patterns[0][:60])
    try:
        answers = limited.run(_PROGRAM, given)
    except limited.BeyondLimitsError as error:
        which = first if len(patterns) == 1 else f"{first} or one of {len(patterns) - 1} others"
        raise PatternError(
            f"{which} cannot be matched with {len(names)} names: {error}; write modules' names, or "
            "a pattern that repeats less"
        ) from None
    found = {}
    for pattern, answer in zip(patterns, answers, strict=True):
        if isinstance(answer, str):
            raise PatternError(
                f"{pattern[:60]!r} is no regular expression ({answer}); write a module's name, or "
                "a pattern for names"
            )
        found[pattern] = {names[at] for at in answer}
    return found
