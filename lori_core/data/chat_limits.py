"""Render a chat template in a process with limits first, to refuse one that does not terminate.

A chat template is a program from a model's folder. Jinja's sandbox protects files and Python
objects from it, but does not stop endless loops or texts that fill the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lori_core.core.files.atomic import canonical_json
from lori_core.core.files.json_input import loads
from lori_core.core.processes import limited

#: The most characters of a template, and of its output for a short question.
_LONGEST = 1_000_000

# The environment behaves like that of transformers' `apply_chat_template` as far as time and memory
# are concerned. Other errors of the template are ignored here; transformers raises them later.
_PROGRAM = f"""
import datetime, jinja2, jinja2.ext, jinja2.sandbox
class Generation(jinja2.ext.Extension):
    tags = {{"generation"}}
    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)
    def _same(self, caller):
        return caller()
def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)
def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
written = 0
try:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = datetime.datetime(2024, 7, 26).strftime
    template = environment.from_string(data["template"])
    for piece in template.generate(**data["values"]):
        written += len(piece)
        if written > {_LONGEST}:
            break
except MemoryError:
    raise
except Exception:
    pass
print(written)
"""


def fault(template: str, turns: Sequence[Mapping[str, str]], values: Mapping[str, Any]) -> str:
    """Return why a template must not be rendered in this process; empty if it may be.

    Args:
        template: the chat template of a tokenizer.
        turns: the conversation.
        values: further variables of the template, such as the special tokens.
    """
    if len(template) > _LONGEST:
        return f"it has {len(template):,} characters, more than {_LONGEST:,}"
    given = {"messages": turns, "add_generation_prompt": True, **values}
    return _fault(template, canonical_json(given))


@lru_cache(maxsize=32)
def _fault(template: str, values: str) -> str:
    try:
        written = limited.run(
            _PROGRAM, {"template": template, "values": loads(values)}, packages=True
        )
    except limited.BeyondLimitsError as error:
        return str(error)
    if written > _LONGEST:
        return f"it writes more than {_LONGEST:,} characters"
    return ""
