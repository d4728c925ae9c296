"""What is secret in a text is taken out of it, and nothing else is."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import time

import pytest

from lori_core.core import redaction
from lori_core.core.errors import InputError
from lori_core.core.redaction import has_secret, keys_with_secrets, redact, redacted

TOKENS = {
    "hugging face": "hf_" + "aB3" * 11,
    "github": "ghp_" + "aB3" * 12,
    "github, fine": "github_pat_" + "aB3_" * 8,
    "gitlab": "glpat-" + "aB3-" * 5,
    "openai": "sk-proj-" + "aB3_" * 8,
    "aws": "AKIA" + "ABCD1234" * 2,
    "slack": "xoxb-" + "123-abc" * 3,
    "google": "AIza" + "aB3_-" * 7,
    "prefect": "pnu_" + "aB3" * 12,
    "databricks": "dapi" + "0123456789abcdef" * 2,
}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("at https://u:secret@host/x refused", "at https://***@host/x refused"),
        ("https://token@host", "https://***@host"),
        ("'https://u:p@ss@host:5000'", "'https://***@host:5000'"),
        ("postgresql://u:pa/s?s#@db:5432/m", "postgresql://***@db:5432/m"),
        ("postgresql+psycopg2://u:123/s@db/m", "postgresql+psycopg2://***@db/m"),
        ("a://u:p@h b://v:q@i", "a://***@h b://***@i"),
        ("https://u:@host", "https://***@host"),
        ("https://h/x?a=1&sig=abc%2B&b=2", "https://h/x?a=1&sig=***&b=2"),
        ("host=db password=hunter2 user=x", "host=db password=*** user=x"),
        ("Authorization: Basic dTpwYXNz", "Authorization: Basic ***"),
        ('{"Authorization": "Bearer abc.def"}', '{"Authorization": "Bearer ***"}'),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nx", "***\nx"),
    ],
)
def test_secrets_of_urls_and_headers_are_taken_out(text: str, clean: str) -> None:
    assert redact(text) == clean
    assert redact(clean) == clean


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_are_known_by_their_form(name: str) -> None:
    assert redact(f"said {TOKENS[name]}, twice: {TOKENS[name]}") == "said ***, twice: ***"
    assert has_secret(TOKENS[name])


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////folder/mlflow.db",
        "http://127.0.0.1:5000/#/experiments/1",
        "http://host:5000/a?mail=me@x.org",
        "ssh://git@host/path",
        "postgresql://lori@db:5432/mlflow",
        "git@github.com:owner/name.git",
        "s3://bucket/path",
        "train@math: made by me@machine",
        "max_new_tokens=128 pad_token=</s>",
        "login(password=secret)",
        "sk-learn-compatible-estimators",
        "artifacts/task-1234567890123456789012345/adapter",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text
    assert not has_secret(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "a-token-of-mine"),
        ("MLFLOW_TRACKING_PASSWORD", 'has "quotes" / and %'),
        ("PGPASSWORD", "plainwords"),
        ("AWS_SECRET_ACCESS_KEY", "abc+def/ghi="),
        ("SOME_API_KEY", "0123456789"),
    ],
)
def test_values_of_variables_that_are_named_like_secrets_are_taken_out(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    from urllib.parse import quote

    texts = [value, quote(value, safe=""), repr(value), f"{value}, again"]
    assert [redact(text) for text in texts] == ["***", "***", "'***'", "***, again"]


def test_variables_that_hold_no_secret_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallelism")
    monkeypatch.setenv("HF_TOKEN_PATH", "somewhere")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/etc/google.json")
    monkeypatch.setenv("A_PASSWORD", "short")
    monkeypatch.setenv("B_PASSWORD", "postgres")
    text = "parallelism somewhere /etc/google.json short postgresql"
    assert redact(text) == text


def test_a_password_in_a_url_of_the_environment_is_known_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://u:my%20pass%2Fword@host")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "lori:the-password")
    assert redact("user u, password my pass/word") == "user u, password ***"
    assert redact("my%20pass%2Fword") == "***"
    assert redact("the-password bG9yaTp0aGUtcGFzc3dvcmQ=") == "*** ***"


def test_nested_values_are_redacted_and_their_keys_found() -> None:
    values = {"a": {"b": ["x", "https://u:p@h"]}, "n": 1, "none": None}
    assert redacted(values) == {"a": {"b": ["x", "https://***@h"]}, "n": 1, "none": None}
    assert list(keys_with_secrets(values)) == ["a.b[1]"]


def test_a_password_with_spaces_and_quotes_is_found_in_a_value() -> None:
    assert has_secret("postgresql://u:a 'b\" c@host/db")


def test_long_text_takes_no_time() -> None:
    parts = {"a": 2_000_000, "://a:": 20_000, "eyJa.eyJ": 20_000, "sk-": 100_000, "A1b/+": 200_000}
    started = time.process_time()
    for part, times in parts.items():
        redact(part * times + " @=")
    assert time.process_time() - started < 10


def test_log_records_are_redacted_for_every_handler() -> None:
    before = logging.getLogRecordFactory()
    stream = io.StringIO()
    logger = logging.getLogger("a logger of this test")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        redaction.redact_logs()
        redaction.redact_logs()
        logger.warning("%s at %s", "asked", "https://u:secret@host")
        logger.warning("%d of %d", 1, 2)
        try:
            raise ValueError("https://u:secret@host")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
        logging.setLogRecordFactory(before)
    text = stream.getvalue()
    assert text.startswith("asked at https://***@host\n1 of 2\nfailed\nTraceback")
    assert text.endswith("ValueError: https://***@host\n")
    assert "secret" not in text


def test_errors_keep_their_class_and_lose_the_secret() -> None:
    with pytest.raises(InputError, match=r"^x: https://\*\*\*@h$"), redaction.redacted_errors():
        raise InputError("x: https://u:p@h")
    with pytest.raises(KeyError, match="plain"), redaction.redacted_errors():
        raise KeyError("plain")
    said = r"KeyError: 'https://\*\*\*@h'"
    with pytest.raises(RuntimeError, match=said), redaction.redacted_errors():
        raise KeyError("https://u:p@h")


def test_what_a_process_prints_is_redacted_and_so_is_its_traceback() -> None:
    code = (
        "import sys\n"
        "from lori_core.core import redaction\n"
        "url = 'https://u:' + 'sec' + 'ret@host'\n"
        "with redaction.redacted_streams():\n"
        "    print('out', url)\n"
        "    print('err', url, file=sys.stderr)\n"
        "    raise OSError(url)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "out https://***@host\n")
    assert done.stderr.startswith("err https://***@host\nTraceback")
    assert done.stderr.endswith("OSError: https://***@host\n")
    assert "secret" not in done.stderr
