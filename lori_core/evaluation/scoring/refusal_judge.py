"""A language model as a second judge of refusals, behind an OpenAI-compatible chat endpoint.

Its labels are reported in addition to the verdicts of `refusal_classifier` and change none.
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

#: The environment variable with the endpoint's token; the token is in no parameter and no file.
TOKEN_VARIABLE = "LORI_JUDGE_TOKEN"  # noqa: S105

#: Waiting times before each retry, and the limit of all retries of a question (seconds).
BACKOFF: tuple[float, ...] = (1.0, 3.0, 6.0)
RETRY_SECONDS = 20.0

_NONE = Mark(NO_ANSWER)


class NoAnswerError(InputError):
    """No question got a usable answer."""


@dataclass(frozen=True)
class _Reply:
    """The result of one request: a mark, or the reason for no label and whether to retry."""

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
        """Ask about one (prompt, output); retry after errors that may be temporary."""
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
        except httpx.HTTPError as error:  # its text may repeat the token, so it is not shown
            return _Reply(_NONE, f"connection lost ({type(error).__name__})", again=True)

    def _exchange(self, body: bytes, limit: float) -> _Reply:
        until = time.monotonic() + limit
        with self.client.stream("POST", self.endpoint, content=body, timeout=limit) as response:
            status, parts = response.status_code, []
            if status != 200:
                return _Reply(_NONE, f"HTTP {status}", again=status == 429 or status >= 500)
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > until:  # httpx only limits the time between two parts
                    raise TimeoutError
        return _parse(b"".join(parts), self.rubric)


def token_from_environment() -> str | None:
    """Return the judge's token from the variable `LORI_JUDGE_TOKEN`; None if it is not set."""
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
    """Ask the judge for each prompt and output whether the output refuses.

    Each question is one `POST {url}/chat/completions` with the rubric's message, at temperature 0.
    Status 429, 5xx and broken connections are retried for at most `RETRY_SECONDS`. Questions
    without an answer are counted, with the reasons, on standard error. The first question is sent
    alone; if it cannot connect, no other is sent.

    Args:
        pairs: prompts and outputs, as texts.
        url: the API's base, such as `http://127.0.0.1:8000/v1`; https unless on this machine.
        model: the judge's model name at the endpoint.
        token: sent as bearer token; it appears in no error, log or result.
        timeout: the limit of one request (seconds).
        workers: the number of concurrent questions.
        rubric: the name of the rubric, one of `judge_rubrics.RUBRICS`.

    Returns:
        The mark of each pair; its label is empty without a usable answer.

    Raises:
        InputError: an argument is wrong.
        NoAnswerError: no question got a usable answer.
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

    if set(url) & set("@?#"):  # the URL may contain a secret, so the error must not show it
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
    """Return the judge's scores on `refusal` examples, and its agreement with the classifier.

    Args:
        examples: the examples of the judged outputs.
        marks: the marks that `ask` returned for the outputs.
        verdicts: the classifier's verdicts (`scorers.score_batch`) on the same outputs.

    Returns:
        `score`, `low`, `high` (95 %), `n`: the share of harmful requests that are refused;
        `over_refusal`: the same for harmless requests; `agreement`: the share of outputs on which
        both judges agree whether the output refuses; `kappa`: Cohen's kappa of this agreement
        (null if chance agreement is 1); `harm`: the mean of `Mark.harm` over harmful requests.
        All are over the outputs with a label, and null without any. `no_answer` is the number of
        outputs without a label.

    Raises:
        InputError: the lengths differ, a label is unknown, or an example has another scorer.
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
    """Return Cohen's kappa of two judges; None if both give the same label to all outputs."""
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
    # Otherwise an HTTP error would quote the token.
    if token is not None and not re.fullmatch(r"[!-~]+", token):
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
        trust_env=endpoint.startswith("https:"),  # plain http must not go through a proxy
    )


def _questions(judge: _Judge, pairs: Sequence[tuple[str, str]], workers: int) -> Iterator[_Reply]:
    """Yield the replies in order; only the first if it could not connect."""
    yield (first := judge.question(pairs[0]))
    if not first.connected:
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(judge.question, pairs[1:])
    finally:
        pool.shutdown(cancel_futures=True)


def _report(replies: Sequence[_Reply], asked: int, endpoint: str, model: str) -> None:
    """Report questions without an answer on standard error.

    Raises:
        NoAnswerError: no question got a usable answer.
    """
    reasons = Counter(reply.reason for reply in replies if reply.mark.label == NO_ANSWER)
    text = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    if reasons.total() == len(replies):
        raise NoAnswerError(
            f"judge: no usable answer to any of {asked} questions from {endpoint} ({text}); check "
            f"that the server runs there, serves {model!r} as a chat model, and that "
            f"{TOKEN_VARIABLE} holds its token if it needs one"
        )
    if reasons:
        missing = f"{reasons.total()} of {asked} outputs without a usable answer"
        print(f"judge: {missing} ({text})", file=sys.stderr, flush=True)


def _body(rubric: Rubric, model: str, prompt: str, output: str) -> bytes:
    """Return the request's body; as ASCII, because unpaired surrogates have no UTF-8 form."""
    delimiter = hashlib.sha256(json.dumps([prompt, output]).encode()).hexdigest()[:16]
    text = rubric.prompt(delimiter, prompt, output)
    settings = {"model": model, "temperature": 0, "max_tokens": rubric.tokens}
    return json.dumps(settings | {"messages": [{"role": "user", "content": text}]}).encode()


def _parse(content: bytes, rubric: Rubric) -> _Reply:
    """Parse a chat completion by the rubric; anything but punctuation around it is refused."""
    try:
        text = json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return _Reply(_NONE, "the reply is no chat completion")
    mark = rubric.read(text) if isinstance(text, str) else _NONE
    return _Reply(mark, "" if mark.label else rubric.expected)
