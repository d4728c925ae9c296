"""Secrets in text, taken out before it is shown, logged, stored or sent anywhere.

Three kinds are known: the user's part of a URL with its password, and secret parameters of a query
(`https://user:password@host/?token=…`); tokens by the form that their issuer gives them (`hf_…`,
`AKIA…`); and the values of this process's environment variables that are named like a secret
(`HF_TOKEN`, `AWS_SECRET_ACCESS_KEY`). Whatever writes text for others calls `redact` or `redacted`.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, TextIO, cast
from urllib.parse import quote, unquote

#: What stands in the place of a secret.
MASK = "***"
#: Shorter values of variables are words that occur anywhere.
LEAST_CHARACTERS = 8

#: Names of environment variables whose values are secret.
_NAMED = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|API_?KEY|ACCESS_KEY|ACCOUNT_KEY|STORAGE_KEY|PRIVATE_KEY|"
    r"ENCRYPTION_KEY|AUTH_STRING|CONNECTION_STRING|(^|_)(TOKEN|PWD|CREDENTIALS?)$"
)
#: Such variables hold where a secret is, not the secret; PWD is the shell's current folder.
_NOT_NAMED = re.compile(r"^(OLD)?PWD$|_(FILE|PATH|DIR|URL|URI)$")

# No space, quote or bracket ends up in a match: they end a URL in a message. The lengths are
# bounded, so that no text takes long.
_AUTHORITY, _ANY = r"""[^\s/?#"'<>]{0,200}""", r"""[^\s@"'<>]{0,200}"""
_USER = r"""[^\s/:@"'<>]{0,100}"""
_DATABASES = "postgresql|postgres|mysql|mariadb|mssql|oracle|redis|rediss|mongodb|amqp|amqps"
#: Parameters of a query that are secret by their whole name, and by how their name ends.
_QUERY = r"pwd|pass|sig|key|auth|code|jwt|bearer|session"
_QUERY_ENDS = (
    r"password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|"
    r"private[_-]?key|subscription[_-]?key|credentials?|signature"
)


def _secret_query(whole: str, ends: str) -> str:
    return rf"[?&;#](?:{whole}|[A-Za-z0-9_.\-]{{0,40}}(?:{ends}))(?:\[[0-9]?\])?="


@dataclass(frozen=True)
class _Form:
    """A secret by its form: one of `marks` is in every text that has one, which is quick to see."""

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    instead: str = MASK

    def taken_out(self, text: str) -> str:
        if not any(mark in text for mark in self.marks):
            return text
        return self.pattern.sub(self.instead, text)


def _token(pattern: str, *marks: str) -> _Form:
    return _Form(marks, re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})"))


_FORMS = [
    _Form(("@",), re.compile(rf"(?<=://){_AUTHORITY}:{_AUTHORITY}@"), f"{MASK}@"),
    # A password may hold what ends the authority; a port does not.
    _Form(("@",), re.compile(rf"(?<=://){_USER}:(?!\d{{1,5}}[/?#]){_ANY}@"), f"{MASK}@"),
    _Form(
        ("@",),
        re.compile(rf"((?:{_DATABASES})(?:\+\w{{1,20}})?://){_USER}:{_ANY}@"),
        rf"\1{MASK}@",
    ),
    # A name alone is a token on the web; elsewhere it is a user (ssh://git@host).
    _Form(("@",), re.compile(rf"(https?://){_AUTHORITY}@"), rf"\1{MASK}@"),
    _Form(
        ("=",),
        re.compile(rf"""({_secret_query(_QUERY, _QUERY_ENDS)})[^\s&;"'<>]+""", re.I),
        rf"\1{MASK}",
    ),
    _Form(("=",), re.compile(r"""(\s(?:password|passwd|pwd)=)[^\s&;"'<>]+"""), rf"\1{MASK}"),
    _token(r"hf_[A-Za-z0-9]{20,}", "hf_"),
    _token(r"gh[pousr]_[A-Za-z0-9]{30,}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _token(r"github_pat_\w{20,}", "github_pat_"),
    _token(r"glpat-[\w-]{16,}", "glpat-"),
    _token(r"sk-(?=[\w-]{0,200}\d)[\w-]{20,}", "sk-"),
    _token(r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])", "AKIA", "ASIA"),
    _token(r"xox[abeprs]-[\w-]{10,}", "xox"),
    _token(r"AIza[\w-]{35}", "AIza"),
    _token(r"ya29\.[\w-]{20,}", "ya29."),
    _token(r"pn[ub]_[A-Za-z0-9]{30,}", "pnu_", "pnb_"),
    _token(r"dapi[0-9a-f]{32}", "dapi"),
    _token(r"npm_[A-Za-z0-9]{36}", "npm_"),
    _token(r"pypi-AgE[\w-]{30,}", "pypi-AgE"),
    _token(r"nvapi-[\w-]{20,}", "nvapi-"),
    _token(r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}", ".eyJ"),
    _Form(
        ("asic ", "earer ", "ASIC ", "EARER "),
        re.compile(
            r"""(Authorization["']?\s{0,5}[:=]\s{0,5}["']?(?:Basic|Bearer)\s{1,5})[^\s"']+""", re.I
        ),
        rf"\1{MASK}",
    ),
    _Form(
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
    ),
]
#: A value that is one URL: its password ends at the last @, whatever is in it.
_WHOLE_URL = re.compile(r"\s*[a-z][a-z0-9+.\-]*://[^/:@]*:(?!\d{1,5}[/?#])(.*)@", re.I | re.DOTALL)


def redact(text: str) -> str:
    """Return a text with `***` in the place of each secret."""
    known = _known(tuple(os.environ.items()))
    return _without_forms(known.sub(MASK, text) if known else text)


def redacted(value: Any) -> Any:
    """Return a value of JSON's kinds with every text in it redacted, names included."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redacted(key): redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(inner) for inner in value]
    return value


def has_secret(text: str) -> bool:
    """Say whether a value holds a secret by its form; the environment does not matter."""
    plain = unquote(text) if "%" in text else text  # a parameter's name may be encoded
    return any(
        bool(_WHOLE_URL.match(each)) or _without_forms(each) != each for each in {text, plain}
    )


def pattern_of_secrets() -> str:
    """Return a regular expression for schemas that finds secret parameters of queries, and tokens.

    It has no flags, which the dialect of JSON Schema does not know.
    """
    either = (
        re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", words)
        for words in (_QUERY, _QUERY_ENDS)
    )
    tokens = [form.pattern.pattern for form in _FORMS if form.instead == MASK]
    return "|".join([_secret_query(*either), *tokens])


def keys_with_secrets(values: Any, where: str = "") -> Iterator[str]:
    """Yield the dotted keys (`tasks.math.source[0].path`) of nested values that hold a secret."""
    if isinstance(values, str) and has_secret(values):
        yield where
    elif isinstance(values, Mapping):
        for key, inner in values.items():
            yield from keys_with_secrets(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(values, (list, tuple)):
        for place, inner in enumerate(values):
            yield from keys_with_secrets(inner, f"{where}[{place}]")


def _without_forms(text: str) -> str:
    for form in _FORMS:
        text = form.taken_out(text)
    return text


@lru_cache(maxsize=8)
def _known(environment: tuple[tuple[str, str], ...]) -> re.Pattern[str] | None:
    """Return what matches the environment's secrets in each form that text has them in."""
    forms = {form for name, value in environment for form in _forms(name, value)}
    forms = {form for form in forms if len(form) >= LEAST_CHARACTERS}
    if not forms:
        return None
    # A password that is a plain word is no secret inside another word: postgres in postgresql.
    words = (
        rf"(?<![A-Za-z]){form}(?![A-Za-z])" if form.isalpha() else re.escape(form)
        for form in sorted(forms, key=len, reverse=True)
    )
    return re.compile("|".join(words))


def _forms(name: str, value: str) -> Iterator[str]:
    url = _WHOLE_URL.match(value)
    secrets = [url[1], unquote(url[1])] if url else []
    if _NAMED.search(name.upper()) and not _NOT_NAMED.search(name.upper()):
        # CREDENTIALS of some clients is a path.
        secrets += [] if os.path.isabs(value) else [value.strip()]  # noqa: PTH117 - never raises
        if "AUTH_STRING" in name.upper():
            secrets += [value.partition(":")[2], base64.b64encode(value.encode()).decode()]
    for secret in secrets:
        yield from (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1])


class _Stream:
    """A text stream that redacts what is written to it, and is the stream itself otherwise."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def redacted_streams() -> Iterator[None]:
    """Redact what this process prints, and the traceback of an error that nobody catches."""
    before = sys.stdout, sys.stderr
    sys.excepthook = _print_traceback
    sys.stdout, sys.stderr = cast(TextIO, _Stream(before[0])), cast(TextIO, _Stream(before[1]))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    lines = traceback.format_exception(kind, error, trace)
    print(redact("".join(lines)), end="", file=sys.stderr)


def redact_logs() -> None:
    """Redact every log record of this process when it is made, whoever then handles it."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            text = record.getMessage()
        except Exception:  # a wrong format string: logging says so itself
            return record
        clean = redact(text)
        if clean != text:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info))).rstrip()
        return record

    made.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(made)


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Take secrets out of the text of an error that passes; it keeps its class where that works."""
    try:
        yield
    except Exception as error:
        said = redact(str(error))
        if said == str(error):
            raise
        error.args = (said,)
        if str(error) == said:
            raise
        raise RuntimeError(f"{type(error).__name__}: {said}") from None
