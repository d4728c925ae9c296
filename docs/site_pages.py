"""The site's pages that lie elsewhere: the documents of the root, examples, and the reference.

A hook of MkDocs (`mkdocs.yml`). Links between documents are written so that they work where the
repository is browsed; here they are turned to the pages of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
#: Documents outside docs/, and their pages.
DOCUMENTS = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples/index.md",
}
LIBRARY = ROOT / "lori_core"
#: Modules that only run in a child process: nobody calls them.
LEFT_OUT = ("evaluation/sandbox/candidate", "evaluation/sandbox/test_runner")
_LINK = re.compile(r"\]\(([^)#:\s]*)(#[^)\s]*)?\)")
_EXAMPLE = re.compile(r"<!-- example: (\S+) -->")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that do not lie in docs/."""
    for source, page in DOCUMENTS.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(_page(config, page, _EXAMPLE.sub(_quoted, _linked(text, source, page))))
    for path in sorted((ROOT / "examples").glob("*.py")):
        files.append(_page(config, f"examples/{path.stem}.md", _code(path, path.stem)))
    rooms = {path.parent.name for path in LIBRARY.glob("*/__init__.py")} - {"api"}
    for room in sorted(rooms):
        files.append(_page(config, f"reference/{room}.md", _reference(room)))
    files.append(_page(config, "reference/api.md", API))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links of a page of docs/ that lead out of it to where the site has them."""
    place = page.file.src_uri
    if page.file.generated_by:
        return markdown
    return _linked(markdown, f"docs/{place}", place)


def _page(config: Any, name: str, text: str) -> File:
    return File.generated(config, name, content=text)


def _linked(text: str, source: str, page: str) -> str:
    """Return a document with its links as they are from its page.

    Args:
        text: the document.
        source: its path in the repository.
        page: its page's path in the site.
    """

    def turned(found: re.Match[str]) -> str:
        path, anchor = found[1], found[2] or ""
        if not path:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if target in DOCUMENTS:
            place = DOCUMENTS[target]
        elif target.startswith("docs/") and not (ROOT / target).is_dir():
            place = target.removeprefix("docs/")
        elif re.fullmatch(r"examples/\w+\.py", target):
            place = target.replace(".py", ".md")
        else:
            return f"]({UNKNOWN}{target})"
        return f"]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor})"

    return _without_unknown(_LINK.sub(turned, text))


#: Marks a link to a file that is no page of the site: its text stays.
UNKNOWN = "file-of-the-repository:"


def _without_unknown(text: str) -> str:
    return re.sub(rf"\[([^\]]*)\]\({UNKNOWN}[^)]*\)", r"`\1`", text)


def _quoted(found: re.Match[str]) -> str:
    """Return a file's code where a document names it as an example."""
    path = ROOT / found[1]
    return _code(path) if path.is_file() else ""


def _code(path: Path, title: str | None = None) -> str:
    code = path.read_text(encoding="utf-8").rstrip()
    heading = f"# {title}\n\n" if title else ""
    return f'{heading}```python title="{path.relative_to(ROOT)}"\n{code}\n```\n'


API = """# Python API

```python
import lori_core as lori
```

::: lori_core.api
    options:
      show_root_heading: false
      show_root_toc_entry: false
      members: false

::: lori_core.api.training.load_params
::: lori_core.api.adapters.load_adapter
::: lori_core.api.adapters.merge
::: lori_core.api.adapters.export
::: lori_core.api.evaluation.evaluate
::: lori_core.api.evaluation.Score
::: lori_core.api.training.train

## What else `lori_core` has

| name | what |
| --- | --- |
| [`Params`][lori_core.config.params.Params] | the parameters of a run |
| [`Adapter`][lori_core.adapters.adapter.Adapter] | an adapter in memory |
| [`Example`][lori_core.data.example.Example] | a prompt with its target and gold answer |
| [`LoriError`][lori_core.core.errors.LoriError] | what every error is a subclass of |
"""


def _reference(room: str) -> str:
    """Return the page of one folder of the library: each module with what is public in it."""
    lines = [f"# lori_core.{room}"]
    for path in sorted((LIBRARY / room).rglob("*.py")):
        name = path.relative_to(LIBRARY).as_posix()
        if path.name == "__init__.py" or path.name.startswith("_") or name.startswith(LEFT_OUT):
            continue
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        lines.append(f"::: {dotted}\n    options:\n      show_root_full_path: true")
    return "\n\n".join(lines)
