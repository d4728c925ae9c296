"""The documents for contributors say what is there, and the small files around them can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import lori_core

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")
EXTENSIONS = ROOT / "examples" / "extensions"
#: What a run writes, and what is no path of this repository.
WRITTEN = ("artifacts/", "metrics/", "data/", "report/", ".lori/", "extensions/", "experiments/")


def named_paths(text: str) -> set[str]:
    """Return what a document names in backquotes that can only be a path from the root."""
    found = re.findall(r"`([\w.-]+(?:/[\w.-]+)*(?:\.(?:py|md|yaml|toml|json)|/))`", text)
    return {path for path in found if "/" in path and not path.startswith(WRITTEN)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_paths_and_links_of_a_document_are_there(document: str) -> None:
    place = ROOT / document
    text = place.read_text(encoding="utf-8")
    rooms = [ROOT, ROOT / "lori_core", ROOT / "docs", place.parent]
    rooms += [path.parent for path in (ROOT / "lori_core").glob("*/__init__.py")]
    rooms += [ROOT / "flows"]
    missing = {p for p in named_paths(text) if not any((room / p).exists() for room in rooms)}
    assert missing == set()
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^):]+)\)", text)}
    links = {link for link in links if link and not link.startswith("examples/extensions/")}
    assert {link for link in links if not (place.parent / link).exists()} == set()


def test_architecture_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    core = {path.parent.name for path in (ROOT / "lori_core").glob("*/__init__.py")}
    flows = {path.parent.name for path in (ROOT / "flows").glob("*/__init__.py")}
    assert {room for room in core | flows if f"`{room}/`" not in text} == set()
    assert {room for room in core if f'<tspan class="mono">{room}</tspan>' not in picture} == set()
    assert len(text.splitlines()) < 200


def test_every_extension_that_is_shown_is_short_and_explained() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = {path.name: path.read_text(encoding="utf-8") for path in EXTENSIONS.glob("*.py")}
    assert {
        name for name in shown if f"<!-- example: examples/extensions/{name} -->" not in text
    } == (set())
    assert {name for name, code in shown.items() if len(code.splitlines()) > 30} == set()


def test_the_glossary_has_each_term_once_in_order() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()[6:]]
    keys = [term.lower().replace("-", " ") for term in terms]
    assert keys == sorted(set(keys))
    assert {"mask", "importance", "excess loss", "content key", "champion"} <= set(terms)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"] == lori_core.__version__
    assert citation["license"] == project["license"]


def test_the_templates_ask_for_what_is_needed() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        template = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != "config":
            assert {"name", "description", "body"} <= template.keys()
            ids = [part["id"] for part in template["body"]]
            assert len(ids) == len(set(ids))


def test_the_hooks_before_a_commit_need_no_network() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    assert {hook["language"] for hook in hooks.values()} == {"system"}
    assert {"end-of-file", "trailing-whitespace", "yaml", "toml", "large-files", "ruff"} <= set(
        hooks
    )
