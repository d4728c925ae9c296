"""Remove secrets from text before it is printed, logged, stored or sent.

Three kinds are recognised: credentials and secret query parameters in URLs
(`https://user:password@host/?token=…`); tokens with an issuer's prefix (`hf_…`, `AKIA…`); and the
values of this process's environment variables with a name of a secret (`HF_TOKEN`,
`AWS_SECRET_ACCESS_KEY`). All code that writes text for others calls `redact` or `redacted`.
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

#: Replaces a secret.
MASK = "***"
#: Shorter values of environment variables are not redacted: they are words that occur anywhere.
LEAST_CHARACTERS = 8

#: Names of environment variables whose values are secret.
_NAMED = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|API_?KEY|ACCESS_KEY|ACCOUNT_KEY|STORAGE_KEY|PRIVATE_KEY|"
    r"ENCRYPTION_KEY|AUTH_STRING|CONNECTION_STRING|(^|_)(TOKEN|PWD|CREDENTIALS?)$"
)
#: Exceptions: variables that hold a secret's location, and PWD, the shell's current folder.
_NOT_NAMED = re.compile(r"^(OLD)?PWD$|_(FILE|PATH|DIR|URL|URI)$")

# A match contains no space, quote or bracket: they end a URL in a message. The lengths are bounded
# to bound the time of matching.
_AUTHORITY, _ANY = r"""[^\s/?#"'<>]{0,200}""", r"""[^\s@"'<>]{0,200}"""
_USER = r"""[^\s/:@"'<>]{0,100}"""
_DATABASES = "postgresql|postgres|mysql|mariadb|mssql|oracle|redis|rediss|mongodb|amqp|amqps"
#: Names of secret query parameters: full names, and endings of names.
_QUERY = r"pwd|pass|sig|key|auth|code|jwt|bearer|session"
_QUERY_ENDS = (
    r"password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|"
    r"private[_-]?key|subscription[_-]?key|credentials?|signature"
)


def _secret_query(whole: str, ends: str) -> str:
    return rf"[?&;#](?:{whole}|[A-Za-z0-9_.\-]{{0,40}}(?:{ends}))(?:\[[0-9]?\])?="


@dataclass(frozen=True)
class _SecretPattern:
    """A pattern of secrets; each match contains one of `marks`, which are checked first."""

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    instead: str = MASK

    def redact(self, text: str) -> str:
        if not any(mark in text for mark in self.marks):
            return text
        return self.pattern.sub(self.instead, text)


def _token(pattern: str, *marks: str) -> _SecretPattern:
    return _SecretPattern(marks, re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})"))


_PATTERNS = [
    _SecretPattern(("@",), re.compile(rf"(?<=://){_AUTHORITY}:{_AUTHORITY}@"), f"{MASK}@"),
    # A password may contain characters that end the authority; a port is no password.
    _SecretPattern(("@",), re.compile(rf"(?<=://){_USER}:(?!\d{{1,5}}[/?#]){_ANY}@"), f"{MASK}@"),
    _SecretPattern(
        ("@",),
        re.compile(rf"((?:{_DATABASES})(?:\+\w{{1,20}})?://){_USER}:{_ANY}@"),
        rf"\1{MASK}@",
    ),
    # Without a password, the user part is a token in HTTP URLs, else a name (ssh://git@host).
    _SecretPattern(("@",), re.compile(rf"(https?://){_AUTHORITY}@"), rf"\1{MASK}@"),
    _SecretPattern(
        ("=",),
        re.compile(rf"""({_secret_query(_QUERY, _QUERY_ENDS)})[^\s&;"'<>]+""", re.I),
        rf"\1{MASK}",
    ),
    _SecretPattern(
        ("=",), re.compile(r"""(\s(?:password|passwd|pwd)=)[^\s&;"'<>]+"""), rf"\1{MASK}"
    ),
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
    _SecretPattern(
        ("asic ", "earer ", "ASIC ", "EARER "),
        re.compile(
            r"""(Authorization["']?\s{0,5}[:=]\s{0,5}["']?(?:Basic|Bearer)\s{1,5})[^\s"']+""", re.I
        ),
        rf"\1{MASK}",
    ),
    _SecretPattern(
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
    ),
]
#: A value that is one URL: the password ends at the last @.
_WHOLE_URL = re.compile(r"\s*[a-z][a-z0-9+.\-]*://[^/:@]*:(?!\d{1,5}[/?#])(.*)@", re.I | re.DOTALL)


def redact(text: str) -> str:
    """Return a text with each secret replaced by `***`."""
    values = _environment_pattern(tuple(os.environ.items()))
    return _redact_patterns(values.sub(MASK, text) if values else text)


def redacted(value: Any) -> Any:
    """Return a JSON-like value with all its strings redacted, including keys."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redacted(key): redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(inner) for inner in value]
    return value


def has_secret(text: str) -> bool:
    """Return whether a text contains a secret by its pattern; the environment is not considered."""
    plain = unquote(text) if "%" in text else text  # a parameter's name may be percent-encoded
    return any(
        bool(_WHOLE_URL.match(each)) or _redact_patterns(each) != each for each in {text, plain}
    )


def pattern_of_secrets() -> str:
    """Return a regular expression for JSON Schema that matches secret query parameters and tokens.

    It has no flags, which JSON Schema does not support.
    """
    either = (
        re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", words)
        for words in (_QUERY, _QUERY_ENDS)
    )
    tokens = [form.pattern.pattern for form in _PATTERNS if form.instead == MASK]
    return "|".join([_secret_query(*either), *tokens])


def keys_with_secrets(values: Any, where: str = "") -> Iterator[str]:
    """Yield the dotted keys (`tasks.math.source[0].path`) of nested values that contain secrets."""
    if isinstance(values, str) and has_secret(values):
        yield where
    elif isinstance(values, Mapping):
        for key, inner in values.items():
            yield from keys_with_secrets(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(values, (list, tuple)):
        for place, inner in enumerate(values):
            yield from keys_with_secrets(inner, f"{where}[{place}]")


def _redact_patterns(text: str) -> str:
    for form in _PATTERNS:
        text = form.redact(text)
    return text


@lru_cache(maxsize=8)
def _environment_pattern(environment: tuple[tuple[str, str], ...]) -> re.Pattern[str] | None:
    """Return a pattern of the environment's secrets, plain and encoded; None if there are none."""
    forms = {form for name, value in environment for form in _encodings(name, value)}
    forms = {form for form in forms if len(form) >= LEAST_CHARACTERS}
    if not forms:
        return None
    # A password of letters only is not redacted inside a longer word: postgres in postgresql.
    words = (
        rf"(?<![A-Za-z]){form}(?![A-Za-z])" if form.isalpha() else re.escape(form)
        for form in sorted(forms, key=len, reverse=True)
    )
    return re.compile("|".join(words))


def _encodings(name: str, value: str) -> Iterator[str]:
    """Yield a secret variable's value as plain text, URL-encoded, and in JSON and repr quotes."""
    url = _WHOLE_URL.match(value)
    secrets = [url[1], unquote(url[1])] if url else []
    if _NAMED.search(name.upper()) and not _NOT_NAMED.search(name.upper()):
        # Some clients' CREDENTIALS variable holds a path.
        secrets += [] if os.path.isabs(value) else [value.strip()]  # noqa: PTH117 - never raises
        if "AUTH_STRING" in name.upper():
            secrets += [value.partition(":")[2], base64.b64encode(value.encode()).decode()]
    for secret in secrets:
        yield from (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1])


class _Stream:
    """A text stream that redacts what is written to it; everything else is delegated."""

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
    """Redact this process's standard output and error, and tracebacks of uncaught exceptions."""
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
    """Redact every log record of this process when it is created, for all handlers."""
    original = logging.getLogRecordFactory()
    if getattr(original, "redacts", False):
        return

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = original(*args, **kwargs)
        try:
            text = record.getMessage()
        except Exception:  # a wrong format string, which logging reports itself
            return record
        clean = redact(text)
        if clean != text:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info))).rstrip()
        return record

    factory.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(factory)


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Redact the text of an exception that passes through; its class is kept if possible."""
    try:
        yield
    except Exception as error:
        text = redact(str(error))
        if text == str(error):
            raise
        error.args = (text,)
        if str(error) == text:
            raise
        raise RuntimeError(f"{type(error).__name__}: {text}") from None
