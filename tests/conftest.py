"""Fixtures of all tests."""

from __future__ import annotations

import os
import signal

import dvc  # noqa: F401 - now: its log handlers keep the streams of the moment it is imported in
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    """Keep everything off the network and on one core."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)  # on models this small a second thread only costs
    # Ignored where the tests run in the background, and so in all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(params=["llama", "mistral", "gpt2"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)
