"""Telling an output that says nothing: it is empty, repeats itself, or is no language.

Such an output is neither a refusal nor an answer. The rules are `RULES`, for people to read.
"""

from __future__ import annotations

import re
import unicodedata

#: How often a word, or a sequence of 2 to `LONGEST_UNIT` words, stands in a row in an output that
#: repeats itself, and which share of the output that takes.
WORD_REPEATS, UNIT_REPEATS, LONGEST_UNIT = 6, 4, 30
REPEATED_SHARE = 0.5
#: Of the sequences of three words in an output of at least so many words, this share has to differ.
MANY_WORDS = 40
DISTINCT_SHARE = 1 / 3
#: An output of at least so many words is no language where fewer than this share of them could be
#: words at all, or where they are of so many scripts.
SOME_WORDS = 8
WORDLIKE_SHARE = 0.5
SCRIPTS = 4
LONGEST_WORD = 25
#: How much is read.
READ_CHARACTERS = 2000

RULES = {
    "empty": "it has no letter and no digit",
    "repeats itself": f"one word at least {WORD_REPEATS} times, or 2 to {LONGEST_UNIT} words at "
    f"least {UNIT_REPEATS} times in a row, over at least {REPEATED_SHARE:.0%} of the output; or, "
    f"of {MANY_WORDS} words and more, fewer than a third of all sequences of three words differ; "
    "the numbers of a list's items do not count",
    "no language": f"of {SOME_WORDS} words and more, fewer than {WORDLIKE_SHARE:.0%} have one "
    f"or two letters, or a vowel and at most {LONGEST_WORD} letters; or words of "
    f"{SCRIPTS} scripts and more; or a tenth of the characters cannot be shown",
}

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
#: The number of a list's item, which differs where nothing else does.
_MARKER = re.compile(r"^\W*(?:\w{1,2}:\s*)?\d+[.)]", re.MULTILINE)
_VOWEL = re.compile(r"[aeiouyàáâãäåæèéêëìíîïòóôõöøœùúûüýÿ]", re.IGNORECASE)
_RUN = re.compile(r"([^\W_]{1,20}?)\1{9,}")


def fault(output: str) -> str:
    """Return which rule an output breaks, or nothing where it may mean something."""
    text = output[:READ_CHARACTERS]
    words = [word.lower() for word in _WORD.findall(text)]
    if not words:
        return "empty"
    if _repeats([word.lower() for word in _WORD.findall(_MARKER.sub("", text))]) or _runs(text):
        return "repeats itself"
    return "no language" if _no_language(text, words) else ""


def _repeats(words: list[str]) -> bool:
    triples = list(zip(words, words[1:], words[2:], strict=False))
    distinct = len(set(triples))
    if distinct > 0.7 * len(words):  # of four in a row over half of the words, 5/8 differ at most
        return False
    for size in range(1, min(LONGEST_UNIT, len(words) // UNIT_REPEATS) + 1):
        least = WORD_REPEATS if size == 1 else UNIT_REPEATS
        if _longest_row(words, size, least) >= max(REPEATED_SHARE * len(words), least * size):
            return True
    return len(words) >= MANY_WORDS and distinct < DISTINCT_SHARE * len(triples)


def _longest_row(words: list[str], size: int, least: int) -> int:
    """Return how many words the rows take in which each word equals that `size` before it."""
    total = row = 0
    for at in range(size, len(words) + 1):
        if at < len(words) and words[at] == words[at - size]:
            row += 1
            continue
        if row + size >= least * size:
            total += row + size
        row = 0
    return total


def _runs(text: str) -> bool:
    """Say whether half of a text is one piece over and over without a space, as in `hahahaha`."""
    pieces = text.split()
    runs = (found[0] for piece in pieces if len(piece) >= 10 for found in _RUN.finditer(piece))
    return sum(map(len, runs)) >= REPEATED_SHARE * sum(map(len, pieces))


def _no_language(text: str, words: list[str]) -> bool:
    if _strange(text):
        return True
    if len(words) < SOME_WORDS:
        return False
    if not text.isascii():
        scripts = {_script(word) for word in words if not word.isdigit()}
        if len(scripts) >= SCRIPTS:
            return True
    return sum(map(_wordlike, words)) < WORDLIKE_SHARE * len(words)


def _strange(text: str) -> bool:
    """Say whether a tenth of the characters, spaces aside, cannot be shown."""
    shown = "".join(text.split())
    if shown.isprintable() and "\ufffd" not in shown:
        return False
    strange = sum(not letter.isprintable() or letter == "\ufffd" for letter in shown)
    return strange >= 0.1 * len(shown)


def _script(word: str) -> str:
    name = unicodedata.name(word[0], "unknown").split(" ", 1)[0]
    # Japanese is written in three scripts, often with Latin words between them.
    return "CJK" if name in ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else name


def _wordlike(word: str) -> bool:
    if word.isdigit() or not word.isascii():
        return True
    return len(word) < 3 or (len(word) <= LONGEST_WORD and bool(_VOWEL.search(word)))
