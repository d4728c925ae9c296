"""The parts for functions over words and characters; see `code_parts.py` for the placeholders."""

from __future__ import annotations

from tools.bundled_data.code_parts import (
    ALL,
    COMMON_AGGREGATES,
    NUMBER_AGGREGATES,
    SMALL,
    Part,
)

LETTERS = ("'a'", "'e'", "'o'", "'r'", "'s'", "'t'", "'n'")
EMPTY_TEXT = ", or '' if there are none"

WORD_FILTERS = (
    ALL,
    Part(
        "longer",
        "{n} longer than {k} letters",
        "len({x}) > {k}",
        "is longer than {k} letters",
        SMALL[1:4],
    ),
    Part(
        "shorter",
        "{n} shorter than {k} letters",
        "len({x}) < {k}",
        "is shorter than {k} letters",
        SMALL[2:5],
    ),
    Part(
        "exactly",
        "{n} of exactly {k} letters",
        "len({x}) == {k}",
        "has exactly {k} letters",
        SMALL[1:4],
        held=True,
    ),
    Part(
        "starting",
        "{n} that start with {k}",
        "{x}.startswith({k})",
        "starts with {k}",
        ("'s'", "'t'", "'b'", "'r'"),
    ),
    Part(
        "ending",
        "{n} that end with {k}",
        "{x}.endswith({k})",
        "ends with {k}",
        ("'e'", "'r'", "'t'", "'n'"),
    ),
    Part("containing", "{n} that contain {k}", "{k} in {x}", "contains {k}", LETTERS),
    Part(
        "lacking",
        "{n} that do not contain {k}",
        "{k} not in {x}",
        "does not contain {k}",
        LETTERS,
        held=True,
    ),
    Part(
        "even_length",
        "{n} with an even number of letters",
        "len({x}) % 2 == 0",
        "has an even number of letters",
    ),
)

WORD_MAPS = (
    Part("", "{f}", "{x}"),
    Part("upper", "{f}, each in upper case", "{x}.upper()", "turn each one to upper case"),
    Part("backwards", "{f}, each spelled backwards", "{x}[::-1]", "spell each one backwards"),
    Part("initial", "the first letters of {f}", "{x}[0]", "take the first letter of each one"),
    Part(
        "final", "the last letters of {f}", "{x}[-1]", "take the last letter of each one", held=True
    ),
    Part("length", "the lengths of {f}", "len({x})", "take the length of each one", gives="int"),
    Part("twice", "{f}, each written twice", "{x} * 2", "write each one twice"),
    Part("marked", "{f}, each followed by '!'", "{x} + '!'", "put '!' after each one"),
    Part(
        "short",
        "{f}, each cut to its first {k} letters",
        "{x}[:{k}]",
        "cut each one to its first {k} letters",
        ("2", "3"),
    ),
    Part(
        "title",
        "{f}, each with a capital first letter",
        "{x}.capitalize()",
        "give each one a capital first letter",
        held=True,
    ),
    Part(
        "without",
        "{f}, each with every {k} removed",
        "{x}.replace({k}, '')",
        "remove every {k} from each one",
        LETTERS[:4],
    ),
)

WORD_AGGREGATES = (
    *NUMBER_AGGREGATES,
    Part(
        "spaced",
        "{f}, joined with spaces",
        "return ' '.join({g})",
        "them joined with spaces",
        takes="str",
    ),
    Part(
        "dashed",
        "{f}, joined with '-'",
        "return '-'.join({g})",
        "them joined with '-'",
        takes="str",
    ),
    Part(
        "commas",
        "{f}, joined with ','",
        "return ','.join({g})",
        "them joined with ','",
        takes="str",
        held=True,
    ),
    Part(
        "total_length",
        "the total length of {f}",
        "return sum(len(item) for item in {p})",
        "the total length",
        takes="str",
    ),
    Part(
        "longest",
        "the longest of {f}",
        "return max({p}, key=len, default='')",
        "the longest one",
        tail=f"{EMPTY_TEXT}; the first one in a tie",
        takes="str",
        held=True,
    ),
)

CHARACTER_FILTERS = (
    ALL,
    Part("vowels", "{n} that are vowels", "{x} in 'aeiouAEIOU'", "is a vowel"),
    Part(
        "nonvowels",
        "{n} that are not vowels",
        "{x} not in 'aeiouAEIOU'",
        "is not a vowel",
        held=True,
    ),
    Part("digits", "{n} that are digits", "{x}.isdigit()", "is a digit"),
    Part("capitals", "{n} that are upper case letters", "{x}.isupper()", "is an upper case letter"),
    Part(
        "small",
        "{n} that are lower case letters",
        "{x}.islower()",
        "is a lower case letter",
        held=True,
    ),
    Part("letters", "{n} that are letters", "{x}.isalpha()", "is a letter"),
    Part("unspaced", "{n} that are not spaces", "{x} != ' '", "is not a space"),
    Part("same", "{n} equal to {k}", "{x} == {k}", "is equal to {k}", LETTERS),
    Part("unlike", "{n} other than {k}", "{x} != {k}", "is not {k}", LETTERS),
)

CHARACTER_MAPS = (
    Part("", "{f}", "{x}"),
    Part("upper", "{f}, each in upper case", "{x}.upper()", "turn each one to upper case"),
    Part(
        "lower", "{f}, each in lower case", "{x}.lower()", "turn each one to lower case", held=True
    ),
    Part("twice", "{f}, each written twice", "{x} * 2", "write each one twice"),
    Part("marked", "{f}, each followed by '.'", "{x} + '.'", "put '.' after each one"),
)

CHARACTER_AGGREGATES = (
    *COMMON_AGGREGATES,
    Part("text", "a string of {f}", "return ''.join({g})", "them as one string", takes="str"),
    Part(
        "dashed",
        "{f}, joined with '-'",
        "return '-'.join({g})",
        "them joined with '-'",
        takes="str",
    ),
)

WORD_KEYS = (
    Part("length", "length", "len({x})"),
    Part("initial", "first letter", "{x}[0]"),
    Part("final", "last letter", "{x}[-1]", held=True),
    Part("itself", "distinct word", "{x}"),
    Part("loud", "spelling in upper case", "{x}.upper()"),
)
