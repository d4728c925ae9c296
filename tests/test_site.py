"""The site is built offline, each link leads somewhere, and nothing comes from other servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the built site; a warning, as of a link that leads nowhere, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    built = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_that_was_promised_is_there(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    documents = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    others = {"index.html", "architecture.html", "contributing.html", "reference/api.html"}
    examples = {f"examples/{path.stem}.html" for path in (ROOT / "examples").glob("*.py")}
    assert documents | others | examples <= pages


def test_the_reference_has_every_room_and_the_api(site: Path) -> None:
    rooms = {path.parent.name for path in (ROOT / "lori_core").glob("*/__init__.py")}
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {room for room in rooms if f": reference/{room}.md" not in navigation} == set()
    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    names = ("load_params", "load_adapter", "merge", "export", "evaluate", "train", "Score")
    assert [
        name for name in names if not re.search(rf'id="lori_core\.api\.\w+\.{name}"', page)
    ] == []


def test_nothing_is_loaded_from_other_servers(site: Path) -> None:
    loaded = [
        (path.name, found)
        for path in site.rglob("*.html")
        for found in re.findall(
            r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?(?:https?:)?//[^">]*',
            path.read_text(encoding="utf-8"),
        )
    ]
    assert loaded == []


def test_links_lead_to_pages_of_the_site(site: Path) -> None:
    page = (site / "contributing.html").read_text(encoding="utf-8")
    assert 'href="architecture.html"' in page
    assert 'href="examples/own_data.html"' in page
    assert "file-of-the-repository" not in page
