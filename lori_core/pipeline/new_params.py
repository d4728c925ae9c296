"""The text of a new project's `params.yaml` and `README.md`, for `lori init`."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lori_core.core.errors import InputError, unknown

_PARAMS = """\
# All settings of a run. Every key is validated. `lori run --set key=value` rewrites this file and
# reports the changes. Keys that are not here have their defaults.

model:
  name_or_path: {base}
  revision: null                   # the commit of a hub model
  dtype: {dtype}

prompt:
  template: auto                   # the tokenizer's chat template if it has one
  system: null                     # null: the template's own system turn; "": none

lori:
  rank: 32
  lora_alpha: 64                   # ΔW is scaled by lora_alpha / rank
  sparsity: 0.9                    # the share of B's entries that are masked out
  target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
  seed: 42
  mask_scope: model                # model | module | projection | layer | matrix
  importance: magnitude            # magnitude | fisher | snip | random
  structure: none                  # none | row | block | group
  values_dtype: float32

training:
  learning_rate: 1.0e-3
  lr_scheduler: linear
  epochs: 1
  batch_size: 8
  max_length: 512                  # the most tokens of prompt and target together

"""
_TASK = """\
    method: lori-s           # any of `lori methods`
    projection_key: null     # the key that A is drawn from; null: the task's name
    calibration: {}          # what differs from `training` in each phase
    training: {}
"""
_REST = """
continual:                         # train tasks on top of a safety task's adapter
  safety_task: null
  tasks: []
  method: null                     # null: that of each task
  training: {}

evaluation: {}                     # batch size, new tokens, protocols: docs/evaluation.md

gate:
  rules: {}                        # what a model must meet before it is served: docs/lineage.md

tracking:
  uri: null                        # null: a SQLite file in this folder
  experiment: lori
"""
_README = """\
# {title}

Sparse LoRA adapters of {base}, made with [LoRI](https://pypi.org/project/lori/):

{tasks}

`params.yaml` has all settings, `dvc.yaml` the stages.

```sh
lori pull --show 3      # read the data; print examples with the learned part in colour
lori plan               # which stages would run, why, and what they would cost
lori run                # train the adapters, merge and evaluate them; run again to go on
lori report             # the results
lori export artifacts/{first}/adapter --to peft OUT
```

The examples of these tasks have no answer that a scorer compares, so a run measures their held-out
loss. `scorer` and `fields.answer` of a source change that (`choice`, `number`, `code`, `refusal`).
Commit `params.yaml`, `dvc.lock`, `data.dvc`, `code/` and `metrics/` after a run; `dvc push` stores
the rest in a DVC remote.
"""


def load(text: str) -> Any:
    """Parse YAML text as `params_file` does."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(text)


def source(data: str, prompt: str | None, target: str | None, where: str) -> Any:
    """Return a task's source as params.yaml has it: the name of a ready-made one, or a definition.

    Args:
        data: a file, a folder, a glob pattern or the name of a ready-made source.
        prompt: the column or template of prompts, for files.
        target: the same of targets.
        where: what an error begins with.

    Raises:
        InputError: there are no such files and no such source, or the files cannot be read.
    """
    from lori_core.data.sources import catalogue, first_look

    if Path(data).expanduser().exists() or glob.has_magic(data):
        return first_look.definition(data, prompt, target, where)
    known = catalogue.named()
    if data not in known:
        raise InputError(f"{where}: no such file or folder, and {unknown('source', data, known)}")
    return data


def text(base: str, sources: Mapping[str, Any], size: int | None) -> str:
    """Return the text of a new `params.yaml`.

    Args:
        base: the base model.
        sources: the source of each task.
        size: the most training examples of each task; None for all.
    """
    import json

    dtype = "float32" if base.startswith("random:") else "bfloat16"
    lines = [_PARAMS.format(base=json.dumps(base, ensure_ascii=False), dtype=dtype), "tasks:\n"]
    for name, value in sources.items():
        lines.append(f"  {name}:\n")
        if isinstance(value, str):
            lines.append(f"    source: {value}\n")
        else:
            lines.append("    source:\n")
            for key, part in value.items():
                lines.append(f"      {key}: {json.dumps(part, ensure_ascii=False)}\n")
        if size is not None:
            share = max(1, size // 10)
            lines.append(f"    sizes: {{train: {size}, validation: {share}, test: {share}}}\n")
        lines.append(_TASK)
    merges = (
        "{}" if len(sources) < 2 else "\n  concat: {method: concat, stage: train, weights: 0.5}"
    )
    return "".join([*lines, f"\nmerge: {merges}\n" if len(sources) < 2 else f"\nmerge:{merges}\n",
                    _REST])  # fmt: skip


def readme(base: str, tasks: Mapping[str, str]) -> str:
    """Return the text of a new `README.md`.

    Args:
        base: the base model.
        tasks: the data of each task.
    """
    listed = "\n".join(f"* `{name}`, from `{data}`" for name, data in tasks.items())
    title = Path.cwd().name or "Adapters"
    return _README.format(title=title, base=base, tasks=listed, first=next(iter(tasks)))
