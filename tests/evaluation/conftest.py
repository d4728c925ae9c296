"""What the tests of the sandbox share."""

from __future__ import annotations

import os
import select
import uuid
from pathlib import Path

import pytest

from lori_core.evaluation.sandbox import isolation as ways


@pytest.fixture
def nothing_survives(monkeypatch: pytest.MonkeyPatch):
    """After each test, wait for the end of every process of its sandboxes; none may go on."""
    mark = uuid.uuid4().hex
    monkeypatch.setitem(ways.ENVIRONMENT, "LORI_TEST_MARK", mark)
    yield
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() not in (folder / "environ").read_bytes():
                continue
            descriptor = os.pidfd_open(int(folder.name))
        except OSError:  # it is another user's, or gone already
            continue
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        ended = poll.poll(5000)
        os.close(descriptor)
        assert ended, f"process {folder.name} outlived its sandbox"
