"""Sending an adapter to a model hub, only when asked: a stock PEFT folder with its model card.

The token is the user's own, from `HF_TOKEN` or `hf auth login`; it is never written or printed.
"""

from __future__ import annotations

from pathlib import Path

from flows.serving import card
from flows.serving.evidence import artifact_here, check_settings, verified
from flows.tracking import registry as reg
from lori_core.adapters import output_folder
from lori_core.config import Params
from lori_core.core.errors import InputError, LoriError
from lori_core.core.redaction import MASK, redact


def prepare(
    word: str, workspace: Path, params: Params, folder: Path, *, force: bool = False
) -> str:
    """Write what is sent: PEFT's files and `README.md`; return the artifact's name.

    The folder is replaced as `output_folder.claim` says, with `force` whatever is in it.

    Raises:
        InputError: the word names no adapter of the workspace as it stands.
        DataError: it is not what was made.
    """
    from flows.serving.packaging import check_adapter, check_model
    from lori_core.methods import finetuned_model

    named = artifact_here(word, workspace, "be sent")
    lineage, node = verified(named, "be sent")
    check_adapter(node, "be sent")
    check_settings(lineage, params, "be sent")
    model = finetuned_model.open_model(workspace / node.name)
    check_model(model, params, node)
    inputs = [workspace / node.name]
    with output_folder.claim(folder, output_folder.TO_PUSH, inputs, force=force) as work:
        finetuned_model.export(model, work)
        (work / "README.md").write_text(card.card(params, lineage, node), "utf-8")
    return node.name


def push(word: str, repository: str, workspace: Path, params: Params, *, private: bool) -> str:
    """Send an adapter to `OWNER/NAME` on the hub; return where it is now.

    Raises:
        InputError: there is no token, or the repository's name is none.
        LoriError: the hub refuses, saying why, or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    token = get_token()
    if not token:
        raise InputError("lori push: no token; set HF_TOKEN, or hf auth login")
    with reg.scratch() as folder:
        name = prepare(word, workspace, params, folder / "adapter")
        api = HfApi(token=token)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            sent = api.upload_folder(
                repo_id=repository,
                folder_path=folder / "adapter",
                commit_message=f"{name}",
            )
        except HFValidationError as error:
            raise InputError(f"lori push: {_said(error, token)}") from None
        except HfHubHTTPError as error:
            raise LoriError(f"{repository}: the hub refuses: {_said(error, token)}") from None
        except Exception as error:  # its client's transport has kinds of error of its own
            raise LoriError(
                f"{repository}: {api.endpoint} cannot be reached ({_said(error, token)}); check "
                "the network, a proxy's settings, HF_ENDPOINT and HF_HUB_OFFLINE"
            ) from None
    return str(sent.commit_url)


def _said(error: Exception, token: str) -> str:
    """Return an error's first line, without the token even if somebody put it there."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return redact(text.replace(token, MASK))[:300]
