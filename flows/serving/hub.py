"""`lori push`: upload an adapter to a model hub, as a standard PEFT folder with its model card.

The user's token, from `HF_TOKEN` or `hf auth login`, is never written or printed.
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
    """Write the files to upload: PEFT's files and `README.md`; return the artifact's name.

    Args:
        word: the adapter, as `lori why` takes it.
        workspace: the folder of the workspace.
        params: the parameters of the run.
        folder: the output folder; see `output_folder.claim`.
        force: whether to replace whatever is in it.

    Raises:
        InputError: the word does not name an adapter of the workspace as it is now.
        DataError: the adapter's files differ from what was recorded.
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
    """Upload an adapter to `OWNER/NAME` on the hub; return the commit's URL.

    Args:
        word: the adapter, as `lori why` takes it.
        repository: the repository, which is created if it is missing.
        workspace: the folder of the workspace.
        params: the parameters of the run.
        private: whether the repository is to be private; an existing one has to be as asked for.

    Raises:
        InputError: there is no token, the repository's name is invalid, or an existing repository
            is public instead of private or the reverse; nothing was uploaded then.
        LoriError: the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    token = get_token()
    if not token:
        raise InputError("lori push: no token; set HF_TOKEN, or run hf auth login")
    with reg.scratch() as folder:
        name = prepare(word, workspace, params, folder / "adapter")
        api = HfApi(token=token)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            # An existing repository keeps its visibility, whatever was asked for.
            _check_visibility(repository, api.repo_info(repository).private, private=private)
            sent = api.upload_folder(
                repo_id=repository,
                folder_path=folder / "adapter",
                commit_message=f"{name}",
            )
        except LoriError:
            raise
        except HFValidationError as error:
            raise InputError(f"lori push: {_first_line(error, token)}") from None
        except HfHubHTTPError as error:
            reason = _first_line(error, token)
            raise LoriError(f"{repository}: the hub refuses: {reason}") from None
        except Exception as error:  # whatever the client's transport raises
            raise LoriError(
                f"{repository}: {api.endpoint} cannot be reached ({_first_line(error, token)}); "
                "check the network, a proxy's settings, HF_ENDPOINT and HF_HUB_OFFLINE"
            ) from None
    return str(sent.commit_url)


def _check_visibility(repository: str, found: bool | None, *, private: bool) -> None:
    if private and not found:
        raise InputError(
            f"{repository}: is public on the hub, and lori push uploads to a private repository "
            "unless told otherwise; add --public, or make it private there; nothing was uploaded"
        )
    if found and not private:
        raise InputError(
            f"{repository}: is private on the hub, in spite of --public; leave out --public, or "
            "make it public there; nothing was uploaded"
        )


def _first_line(error: Exception, token: str) -> str:
    """Return an error's first line, with the token masked."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return redact(text.replace(token, MASK))[:300]
