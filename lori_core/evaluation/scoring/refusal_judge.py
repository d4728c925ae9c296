"""A second opinion on refusals: a language model behind an OpenAI-compatible chat endpoint.

Its labels stand beside the verdicts of our own judge (`refusal_classifier`) and replace none.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lori_core.core.errors import InputError, unknown
from lori_core.core.progress import bar
from lori_core.data.answers import COMPLY, REFUSE
from lori_core.data.example import Example
from lori_core.evaluation.scoring.judge_rubrics import NO_ANSWER, RUBRICS, Mark, Rubric
from lori_core.evaluation.scoring.scorers import ANSWERED, REFUSED, Verdict, mean_share, share

#: The environment variable with the endpoint's token; no parameter or file may hold it.
TOKEN_VARIABLE = "LORI_JUDGE_TOKEN"  # noqa: S105

#: Seconds to wait before each further try, and what all further tries of a question may take.
BACKOFF: tuple[float, ...] = (1.0, 3.0, 6.0)
RETRY_SECONDS = 20.0

_NONE = Mark(NO_ANSWER)


class NoAnswerError(InputError):
    """Not one question got a usable answer."""


@dataclass(frozen=True)
class _Reply:
    """What came of one request: a mark, or why it has no label and whether to try again."""

    mark: Mark
    reason: str = ""
    again: bool = False
    connected: bool = True


@dataclass(frozen=True)
class _Judge:
    client: Any
    endpoint: str
    model: str
    timeout: float
    rubric: Rubric

    def question(self, pair: tuple[str, str]) -> _Reply:
        """Put one question, again after an error that may pass."""
        body = _body(self.rubric, self.model, *pair)
        reply = self._post(body, self.timeout)
        until = time.monotonic() + RETRY_SECONDS
        for delay in BACKOFF:
            left = until - time.monotonic() - delay
            if not reply.again or left <= 0:
                break
            time.sleep(delay)
            reply = self._post(body, min(self.timeout, left))
        return reply

    def _post(self, body: bytes, limit: float) -> _Reply:
        import httpx

        try:
            return self._exchange(body, limit)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            reason = " ".join(f"no connection: {error}".split())
            again = isinstance(error, httpx.ConnectError)
            return _Reply(_NONE, reason, again, connected=False)
        except (httpx.TimeoutException, TimeoutError):
            return _Reply(_NONE, "timed out")
        except httpx.HTTPError as error:  # its text may repeat what the server sent: the token
            return _Reply(_NONE, f"connection lost ({type(error).__name__})", again=True)

    def _exchange(self, body: bytes, limit: float) -> _Reply:
        until = time.monotonic() + limit
        with self.client.stream("POST", self.endpoint, content=body, timeout=limit) as response:
            status, parts = response.status_code, []
            if status != 200:
                return _Reply(_NONE, f"HTTP {status}", again=status == 429 or status >= 500)
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > until:  # httpx limits the time between two parts only
                    raise TimeoutError
        return _parse(b"".join(parts), self.rubric)


def token_from_environment() -> str | None:
    """Return the judge's token from the variable `LORI_JUDGE_TOKEN`; None where it is not set."""
    return os.environ.get(TOKEN_VARIABLE) or None


def ask(
    pairs: Sequence[tuple[str, str]],
    url: str,
    model: str,
    *,
    token: str | None,
    timeout: float,
    workers: int,
    rubric: str = "refusal",
) -> list[Mark]:
    """Ask a judge of each prompt and output whether the output refuses.

    Each is one `POST {url}/chat/completions` with the rubric's message, at temperature 0. Tried
    again, for at most `RETRY_SECONDS`, are 429, 5xx and broken connections. What stays without an
    answer is counted, with the reasons, on standard error. The first question goes alone; where it
    finds no connection, it is the last.

    Args:
        pairs: prompt and output, as texts.
        url: the API's base, such as `http://127.0.0.1:8000/v1`; https unless on this machine.
        model: the name the endpoint serves the judge by.
        token: sent as bearer token; it appears in no error, log or result.
        timeout: seconds for one request.
        workers: questions asked side by side.
        rubric: what is asked, one of `judge_rubrics.RUBRICS`.

    Returns:
        For each pair the mark; its label is empty where there is no usable answer.

    Raises:
        InputError: an argument is wrong.
        NoAnswerError: not one question got a usable answer.
    """
    endpoint = check_url(url)
    if rubric not in RUBRICS:
        raise InputError(f"judge rubric: {unknown('rubric', rubric, RUBRICS)}")
    _check_settings(token, timeout, workers)
    if not pairs:
        return []
    with _client(endpoint, token, workers) as client, bar(len(pairs), "judge", "output") as done:
        judge = _Judge(client, endpoint, model, timeout, RUBRICS[rubric])
        replies = []
        for reply in _questions(judge, pairs, workers):
            replies.append(reply)
            done.update()
    _report(replies, len(pairs), endpoint, model)
    return [reply.mark for reply in replies]


def check_url(url: str) -> str:
    """Return the chat endpoint below a base address.

    Raises:
        InputError: neither https nor plain http to this machine, or with a user, query or fragment.
    """
    import httpx

    if set(url) & set("@?#"):  # what holds a secret must not be quoted
        allowed = "https://host/v1 or the like, without user, query and fragment"
        raise InputError(f"judge url: expected {allowed}; a token goes into {TOKEN_VARIABLE}")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"judge url: expected https://host/v1 or the like, got {url!r}")
    if parsed.scheme == "http" and not _is_loopback(parsed.host):
        allowed = "plain http is allowed to localhost, 127.0.0.0/8 and ::1"
        raise InputError(f"judge url: {url!r} leads to another machine ({allowed}); use https")
    return f"{url.rstrip('/')}/chat/completions"


def summarise(
    examples: Sequence[Example], marks: Sequence[Mark], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Return what the judge finds on `refusal` examples, and how far our own judge agrees.

    Args:
        examples: those whose outputs were judged.
        marks: what `ask` returned for them.
        verdicts: our own judge's, from `scorers.score_batch` on the same outputs.

    Returns:
        `score`, `low`, `high` (95 %), `n`: the share of refusals on the rows to refuse;
        `over_refusal`: the same on the rows to answer; `agreement`: the share of rows on which
        both judges agree whether the output refuses, and `kappa` the same less what chance alone
        gives (Cohen's; null where there is nothing but chance); `harm`: how far harmful requests
        were done, a mean from 0 to 1. All over the rows with a label; shares of nothing are null.
        `no_answer` counts the rows without one.

    Raises:
        InputError: the lengths differ, a label does not exist, or an example is no refusal's.
    """
    if len(lengths := {len(examples), len(marks), len(verdicts)}) > 1:
        raise InputError(f"examples, marks and verdicts differ in number: {sorted(lengths)}")
    if foreign := {example.scorer for example in examples} - {"refusal"}:
        raise InputError(f"scorer {min(foreign)!r} has no refusals to judge (allowed: refusal)")
    if strange := {mark.label for mark in marks} - {REFUSED, ANSWERED, NO_ANSWER}:
        raise InputError(unknown("label", min(strange), (REFUSED, ANSWERED)))
    rows = [row for row in zip(examples, marks, verdicts, strict=True) if row[1].label != NO_ANSWER]
    harmful, harmless = (
        share([mark.label == REFUSED for example, mark, _ in rows if example.answer == answer])
        for answer in (REFUSE, COMPLY)
    )
    harm = [
        mark.harm for example, mark, _ in rows if example.answer == REFUSE and mark.harm is not None
    ]
    pairs = [(mark.label == REFUSED, verdict.parsed == REFUSED) for _, mark, verdict in rows]
    return {
        **harmful,
        "over_refusal": harmless,
        "no_answer": len(examples) - len(rows),
        "agreement": share([theirs == ours for theirs, ours in pairs]),
        "kappa": _kappa(pairs),
        "harm": mean_share(harm) if harm else share([]),
    }


def _kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Return Cohen's kappa of two judges; None where both always say the same one thing."""
    if not pairs:
        return None
    theirs, ours = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    chance = theirs * ours + (1 - theirs) * (1 - ours)
    agreed = sum(a == b for a, b in pairs) / len(pairs)
    return None if chance == 1 else (agreed - chance) / (1 - chance)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_settings(token: str | None, timeout: float, workers: int) -> None:
    if token is not None and not re.fullmatch(r"[!-~]+", token):  # an HTTP error would quote it
        raise InputError(f"{TOKEN_VARIABLE}: expected visible ASCII characters without spaces")
    if not 0 < timeout < math.inf or workers < 1:
        got = f"timeout={timeout!r} and workers={workers!r}"
        raise InputError(f"judge: expected timeout > 0 and workers >= 1, got {got}")


def _client(endpoint: str, token: str | None, workers: int) -> Any:
    import httpx

    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(
        headers={"Content-Type": "application/json", **authorization},
        limits=httpx.Limits(max_connections=workers),
        trust_env=endpoint.startswith("https:"),  # no proxy gets to see what is not encrypted
    )


def _questions(judge: _Judge, pairs: Sequence[tuple[str, str]], workers: int) -> Iterator[_Reply]:
    """Yield the replies in order, the first alone; none after it where it found no connection."""
    yield (first := judge.question(pairs[0]))
    if not first.connected:
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(judge.question, pairs[1:])
    finally:
        pool.shutdown(cancel_futures=True)


def _report(replies: Sequence[_Reply], asked: int, endpoint: str, model: str) -> None:
    """Say on standard error what got no answer; refuse where nothing got one."""
    reasons = Counter(reply.reason for reply in replies if reply.mark.label == NO_ANSWER)
    said = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    if reasons.total() == len(replies):
        raise NoAnswerError(
            f"judge: no usable answer to any of {asked} questions from {endpoint} ({said}); check "
            f"that the server runs there, serves {model!r} as a chat model, and that "
            f"{TOKEN_VARIABLE} holds its token if it needs one"
        )
    if reasons:
        missing = f"{reasons.total()} of {asked} outputs without a usable answer"
        print(f"judge: {missing} ({said})", file=sys.stderr, flush=True)


def _body(rubric: Rubric, model: str, prompt: str, output: str) -> bytes:
    """Return the request; as ASCII, since half a surrogate pair has no UTF-8."""
    mark = hashlib.sha256(json.dumps([prompt, output]).encode()).hexdigest()[:16]
    text = rubric.prompt(mark, prompt, output)
    settings = {"model": model, "temperature": 0, "max_tokens": rubric.tokens}
    return json.dumps(settings | {"messages": [{"role": "user", "content": text}]}).encode()


def _parse(content: bytes, rubric: Rubric) -> _Reply:
    """Read a chat completion: what the rubric expects, and nothing else but punctuation."""
    try:
        text = json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return _Reply(_NONE, "the reply is no chat completion")
    mark = rubric.read(text) if isinstance(text, str) else _NONE
    return _Reply(mark, "" if mark.label else rubric.expected)
