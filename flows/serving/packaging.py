"""Package an adapter for MLflow's registry, loadable by PEFT and by MLflow.

The folder holds a standard PEFT adapter (`artifacts/adapter`), the file that MLflow runs to serve
it, the snapshot it was made in (`snapshot/`) and a model card, but not the base model.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.environment import quiet_environment
from flows.lineage.ancestry import Lineage, Node
from flows.lineage.measured import evaluation
from flows.serving.comparability import evaluation_tags
from flows.tracking.logged_models import KEY, MD5, PATH
from flows.versioning import snapshot
from lori_core.config import Params
from lori_core.core.errors import InputError
from lori_core.core.redaction import redact

if TYPE_CHECKING:
    from lori_core.methods.finetuned_model import Trained

CODE = Path(__file__).parent / "serving_model.py"
#: The standard PEFT folder inside the artifact.
ADAPTER = "artifacts/adapter"
EXAMPLE = "What is 17 + 25?"


def package(node: Node, workspace: Path, params: Params, folder: Path, card: str = "") -> int:
    """Write an adapter's registry folder; return its size in bytes.

    Args:
        node: the adapter.
        workspace: the workspace of its files.
        params: the parameters of the run: the base model, and how prompts are rendered.
        folder: the folder to write; it must not exist.
        card: the model card in Markdown.

    Raises:
        InputError: the node is no adapter, or an adapter of another base than that of `params`.
    """
    from lori_core.methods import finetuned_model

    check_adapter(node, "be registered")
    peft = folder.with_name(f"{folder.name}-peft") / "adapter"
    model = finetuned_model.open_model(workspace / node.name)
    check_model(model, params, node)
    params = _as_evaluated(params, node, workspace)
    finetuned_model.export(model, peft)
    with warnings.catch_warnings():
        # MLflow warns about type hints of its own classes when it is imported.
        warnings.simplefilter("ignore", UserWarning)
        _save(folder, peft, params)
    (folder / "snapshot").mkdir()
    snapshot.copy_files(workspace, folder / "snapshot")
    if card:
        (folder / "README.md").write_text(redact(card), encoding="utf-8")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_adapter(node: Node, do: str) -> None:
    """Refuse an artifact that is not an adapter.

    Args:
        node: the artifact.
        do: what only adapters can do, for the message, e.g. `be registered`.

    Raises:
        InputError: the message names the artifact and its kind.
    """
    if node.kind == "full model":
        raise InputError(
            f"{node.name}: is a full model, with all weights of its base trained; only adapters "
            f"can {do}"
        )
    if node.kind not in ("adapter", "merged adapter"):
        raise InputError(f"{node.name}: is a {node.kind}; only adapters can {do}")


def check_model(model: Trained, params: Params, node: Node) -> None:
    """Refuse an adapter of another base than `params.yaml` names, on which it would be served.

    Raises:
        InputError: the message names both bases.
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
        # Without these, MLflow would load the base to find out what is imported.
        pip_requirements=_requirements(),
        model_config={
            "model": params.model.model_dump(),
            "prompt": params.prompt.model_dump(),
            "limits": limits,
        },
    )


def _as_evaluated(params: Params, node: Node, workspace: Path) -> Params:
    """Return the parameters with the `evaluation` that an adapter's scores were measured with."""
    stage = evaluation(snapshot.of_workspace(workspace), node.name, node.entry.md5)
    recorded = stage.params.get("evaluation") if stage else None
    if recorded is None:
        return params
    try:
        section = type(params.evaluation).model_validate(recorded)
    except ValueError:
        raise InputError(
            f"{snapshot.LOCK}: the evaluation of {node.name} has settings that this version of "
            "lori does not know; lori run evaluates it again"
        ) from None
    return params.model_copy(update={"evaluation": section})


def _limits(params: Params) -> dict[str, int]:
    """Return the limits of requests to the served model: those of its evaluation."""
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
    """Return a version's tags: path, hash, content key, commit and evaluation of the artifact."""
    tags = {PATH: node.name, MD5: node.entry.md5, KEY: node.key or node.entry.md5}
    run: Mapping[str, Any] = node.facts.get("made") or {}
    if run.get("commit"):
        tags["git.commit"] = str(run["commit"])
    stage = evaluation(lineage.snapshot, node.name, node.entry.md5)
    return tags | (evaluation_tags(stage, lineage.snapshot) if stage else {})
