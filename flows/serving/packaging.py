"""An artifact as MLflow's registry keeps it: adapter-size, loadable by PEFT and by MLflow.

The folder holds a stock PEFT adapter (`artifacts/adapter`), the file that MLflow runs to serve it,
the state it was made from (`snapshot/`) and a model card. Never the base model.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.environment import quiet_environment
from flows.lineage.ancestry import Lineage, Node
from flows.lineage.measured import evaluation, rows_of
from flows.tracking.registry import EVALUATION, KEY, MD5, PATH, SETTINGS
from flows.versioning import snapshot
from lori_core.config import Params
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import canonical_json
from lori_core.core.redaction import redact

if TYPE_CHECKING:
    from lori_core.methods.finetuned_model import Trained

CODE = Path(__file__).parent / "serving_model.py"
#: The stock PEFT folder inside the artifact.
ADAPTER = "artifacts/adapter"
EXAMPLE = "What is 17 + 25?"


def package(node: Node, workspace: Path, params: Params, folder: Path, card: str = "") -> int:
    """Write an adapter's registry folder; return its bytes.

    Args:
        node: the adapter.
        workspace: where it lies.
        params: of the run: which base to put it on, and how prompts are rendered.
        folder: where to write; must not be there.
        card: the model card, Markdown.

    Raises:
        InputError: it is no adapter, or one of another base than the run's.
    """
    from lori_core.methods import finetuned_model

    check_adapter(node, "be registered")
    peft = folder.with_name(f"{folder.name}-peft") / "adapter"
    model = finetuned_model.open_model(workspace / node.name)
    check_model(model, params, node)
    finetuned_model.export(model, peft)
    with warnings.catch_warnings():
        # MLflow warns about type hints of its own classes when it is imported.
        warnings.simplefilter("ignore", UserWarning)
        _save(folder, peft, params)
    state = folder / "snapshot"
    state.mkdir()
    snapshot.copy_kept(workspace, state)
    if card:
        (folder / "README.md").write_text(redact(card), encoding="utf-8")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_adapter(node: Node, do: str) -> None:
    """Refuse what is no adapter, and so cannot `do` something: be registered, have a card, ….

    Raises:
        InputError: naming it and what it is.
    """
    if node.kind == "full model":
        raise InputError(
            f"{node.name}: is a full model, every weight of its base trained; only adapters can "
            f"{do}"
        )
    if node.kind not in ("adapter", "merged adapter"):
        raise InputError(f"{node.name}: is a {node.kind}; only adapters can {do}")


def check_model(model: Trained, params: Params, node: Node) -> None:
    """Refuse an adapter of another base than params.yaml names: it would be served on that one.

    Raises:
        InputError: naming both.
    """
    from lori_core.adapters.adapter import full_name
    from lori_core.adapters.base_choice import stands_for

    if not stands_for(params.model, model.base):
        raise InputError(
            f"{node.name}: made for the base {full_name(model.base)}, but params.yaml has "
            f"model.name_or_path {params.model.name_or_path!r}; put that model back, or run again"
        )


def _save(folder: Path, peft: Path, params: Params) -> None:
    quiet_environment()
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    from flows.serving.serving_model import MAX_NEW_TOKENS

    limits = _limits(params)
    default = min(MAX_NEW_TOKENS, limits["max_new_tokens"])
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt")]),
        outputs=Schema([ColSpec(DataType.string, "text")]),
        params=ParamSchema([ParamSpec("max_new_tokens", DataType.integer, default)]),
    )
    pyfunc.save_model(
        str(folder),
        python_model=str(CODE),
        artifacts={"adapter": str(peft)},
        signature=signature,
        input_example=pd.DataFrame({"prompt": [EXAMPLE]}),
        # Given, so that MLflow does not load the base to find out what is imported.
        pip_requirements=_requirements(),
        model_config={
            "model": params.model.model_dump(),
            "prompt": params.prompt.model_dump(),
            "limits": limits,
        },
    )


def _limits(params: Params) -> dict[str, int]:
    """Return what a request to the served model may ask for: no more than was evaluated."""
    evaluation = params.evaluation
    return {
        "max_new_tokens": max(evaluation.new_tokens.values()),
        "max_prompt_length": evaluation.max_prompt_length,
        "max_prompts": evaluation.batch_size,
    }


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "torch", "transformers", "peft")]


def tags_of(node: Node, lineage: Lineage) -> dict[str, str]:
    """Return a version's tags: which artifact it is, by path, hash and content key, and commit."""
    tags = {PATH: node.name, MD5: node.entry.md5, KEY: node.key or node.entry.md5}
    made: Mapping[str, Any] = node.facts.get("made") or {}
    if made.get("commit"):
        tags["git.commit"] = str(made["commit"])
    stage = evaluation(lineage.snapshot, node.name, node.entry.md5)
    rows = rows_of(stage)
    if stage and rows:
        tags[EVALUATION] = f"{rows}={stage.outs[rows].md5}"
        tags[SETTINGS] = canonical_json(stage.params.get("evaluation") or {})
    return tags
