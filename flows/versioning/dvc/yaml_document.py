"""Parse DVC's YAML files with libyaml, by the rules of YAML 1.2 as DVC's own parser does."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

from flows.versioning.dvc import dvc_files
from lori_core.core.errors import InputError
from lori_core.core.files import yaml_input


def damaged(where: str, what: str, mend: str) -> InputError:
    """Return the error that a file is damaged: where, in what way, and how to restore it."""
    return InputError(f"{where}: damaged: {what}; {mend}")


def parsed(content: bytes, where: str, mend: str, *, by_hand: bool = False) -> dict[str, Any]:
    """Return the mapping in one of DVC's YAML files; refuse duplicate keys.

    It is parsed by libyaml if that is installed, since 100 stages are 6,000 lines; the same bytes
    are parsed once. The caller must not change the result.

    Args:
        content: the file's bytes.
        where: the file's name in messages.
        mend: how to restore the file, for messages.
        by_hand: whether people edit the file; then its last line need not end with a newline.

    Raises:
        InputError: the file is truncated or holds no such mapping.
    """
    import yaml

    if not content.strip():
        raise damaged(where, "the file is empty", mend)
    mark = re.search(rb"^(<<<<<<<|=======|>>>>>>>)( |\r?$)", content, re.M)
    if mark:
        at = content.count(b"\n", 0, mark.start()) + 1
        raise damaged(f"{where}:{at}", "it holds the marks of a merge conflict", mend)
    try:
        dvc_files.scan(content, where)
    except yaml_input.YAMLFaultError as error:
        raise damaged(error.at(where), str(error), mend) from None
    except InputError as error:
        raise InputError(f"{error}; {mend}") from None
    try:
        document = _loaded(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        twice = getattr(error, "problem", None) == _TWICE
        what = "a key is there twice" if twice else "not YAML"
        raise damaged(f"{where}{line}", what, mend) from None
    except (ValueError, RecursionError) as error:  # an impossible date, too deep nesting
        raise damaged(where, f"not YAML that DVC wrote ({error})", mend) from None
    if not by_hand and not content.endswith(b"\n"):
        raise damaged(where, "truncated: its last line does not end with a newline", mend)
    if not isinstance(document, dict):
        raise damaged(where, "not a mapping", mend)
    return document


@lru_cache(maxsize=8)
def _loaded(content: bytes) -> Any:
    import yaml

    return yaml.load(content, Loader=_loader())  # noqa: S506 - a safe loader


_TWICE = "found a key twice"


@cache
def _loader() -> Any:
    """Return a safe loader for YAML 1.2 that refuses duplicate keys of a mapping.

    PyYAML reads YAML 1.1, in which `no` is false and `1e-05` is text. The rules for plain values
    are therefore those of ruamel.yaml, with which DVC reads and writes its files.
    """
    import yaml
    from ruamel.yaml.resolver import implicit_resolvers

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(None, None, _TWICE, key.start_mark)
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    for versions, tag, pattern, first in implicit_resolvers:
        if (1, 2) in versions:
            Loader.add_implicit_resolver(tag, pattern, first)
    Loader.add_constructor("tag:yaml.org,2002:int", _integer)
    return Loader


def _integer(loader: Any, node: Any) -> int:
    """Return an integer of YAML 1.2: decimal, also with leading zeros, or 0o, 0x and 0b."""
    text = loader.construct_scalar(node).replace("_", "")
    base = 0 if re.match(r"[-+]?0[xob]", text) else 10
    return int(text, base)
