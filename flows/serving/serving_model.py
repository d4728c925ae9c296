"""The model that MLflow serves: a base model with a registered adapter. MLflow runs this file.

The base is not in the artifact: it is downloaded or converted when the model is loaded, as in a
run. So the serving environment needs this package beside MLflow.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

#: The default of a request's `max_new_tokens`.
MAX_NEW_TOKENS = 128
BATCH_SIZE = 16
#: An upper bound on the average token length: longer prompts are refused before tokenization.
CHARACTERS_PER_TOKEN = 32


class RefusedError(MlflowException):
    """A request that is not answered, with the reason in one line.

    MLflow's server would add the request to the message; `serialize_as_json` removes it again.
    """

    def __init__(self, reason: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        super().__init__(reason, error_code=error_code)
        self.reason = reason

    def serialize_as_json(self) -> str:
        """Return the response's body with the reason only."""
        self.message = self.reason
        return str(super().serialize_as_json())


@dataclass(frozen=True)
class Limits:
    """The limits of a request; a registered model has those of its evaluation.

    Attributes:
        max_new_tokens: the most tokens to generate for a prompt.
        max_prompt_length: the most tokens of a prompt.
        max_prompts: the most prompts of a request.
    """

    max_new_tokens: int = 1024
    max_prompt_length: int = 4096
    max_prompts: int = 64

    def new_tokens(self, params: Mapping[str, Any] | None) -> int:
        """Return how many tokens to generate for each prompt.

        Raises:
            RefusedError: `max_new_tokens` is not an integer within the limit.
        """
        default = min(MAX_NEW_TOKENS, self.max_new_tokens)
        value = (params or {}).get("max_new_tokens", default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= self.max_new_tokens:
            raise RefusedError(
                f"max_new_tokens: {str(value)[:40]}; allowed: 1 to {self.max_new_tokens}"
            )
        return int(value)

    def prompts(self, model_input: pd.DataFrame) -> list[str]:
        """Return the prompts of a request.

        Raises:
            RefusedError: there are none or too many, or a prompt is not a text, empty or too long.
        """
        if "prompt" not in model_input:
            raise RefusedError("prompt: this column is needed")
        prompts = list(model_input["prompt"])
        if not 1 <= len(prompts) <= self.max_prompts:
            raise RefusedError(f"prompt: {len(prompts)} of them; allowed: 1 to {self.max_prompts}")
        longest = CHARACTERS_PER_TOKEN * self.max_prompt_length
        for number, prompt in enumerate(prompts):
            if not isinstance(prompt, str):
                raise RefusedError(f"prompt {number}: expected text, got {_kind(prompt)}")
            if not prompt.strip():
                raise RefusedError(f"prompt {number}: is empty")
            if len(prompt) > longest:
                raise RefusedError(
                    f"prompt {number}: {len(prompt)} characters; allowed: {longest}, and "
                    f"{self.max_prompt_length} tokens"
                )
        return prompts


def _kind(value: Any) -> str:
    """Return the type's name in JSON; pandas turns null into NaN."""
    if value is None or (isinstance(value, float) and value != value):
        return "null"
    return type(value).__name__


class LoriModel(PythonModel):
    """Generates answers with one adapter on its base model."""

    def load_context(self, context: Any) -> None:
        """Load the base model and apply the adapter.

        Raises:
            AdapterError: the adapter's files were changed, or it is for another base model.
        """
        from lori_core.adapters.adapter import check_base
        from lori_core.config import ModelSection, PromptSection
        from lori_core.core.errors import AdapterError
        from lori_core.data.prompts import check_template
        from lori_core.methods import finetuned_model
        from lori_core.models import base_model

        section = ModelSection.model_validate(context.model_config["model"])
        self.limits = Limits(**context.model_config.get("limits", {}))
        self.prompt = PromptSection.model_validate(context.model_config["prompt"])
        folder = base_model.prepare(section)
        adapter = finetuned_model.open_model(Path(context.artifacts["adapter"]))
        if "changed_from" in adapter.info:
            raise AdapterError(
                f"{context.artifacts['adapter']}: differs from what was registered and judged; "
                "register the model again"
            )
        check_base(adapter, base_model.identity(section, folder), "the registered adapter")
        self.tokenizer = base_model.load_tokenizer(folder)
        check_template(self.prompt, self.tokenizer)
        base = base_model.load(section, folder)
        self.model = finetuned_model.apply_model(base, adapter)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> Any:
        """Return a data frame with a column `text` and a row for each prompt.

        Args:
            context: MLflow's context, unused.
            model_input: a data frame with a column `prompt`.
            params: may hold `max_new_tokens`.

        Raises:
            RefusedError: the request is invalid (status 400) or failed here (500); the response
                has one line and no traceback, which MLflow's server would add.
        """
        try:
            limit = self.limits.new_tokens(params)
            prompts = self.limits.prompts(model_input)
            return pd.DataFrame({"text": self._answers(prompts, limit)})
        except RefusedError:
            raise
        except Exception as error:
            logging.getLogger("lori").exception("a request failed")
            raise RefusedError(
                f"the model failed ({type(error).__name__}); see the server's log",
                INTERNAL_ERROR,
            ) from None

    def _answers(self, prompts: list[str], limit: int) -> list[str]:
        from lori_core.data.prompts import encode_prompt
        from lori_core.evaluation.inference.generation import Request, generate
        from lori_core.methods.limits import positions

        most = positions(self.model.config)
        room = self.limits.max_prompt_length
        if most is not None:
            room = min(room, most - limit)
        if room < 1:
            raise RefusedError(f"max_new_tokens: {limit}, but the model has {most} positions")
        requests = []
        for number, prompt in enumerate(prompts):
            tokens, cut = encode_prompt(prompt, self.prompt, self.tokenizer, room)
            if cut:
                raise RefusedError(f"prompt {number}: has more tokens than fit (allowed: {room})")
            requests.append(Request(tokens, limit))
        outputs = generate(self.model, self.tokenizer, requests, BATCH_SIZE, "answers")
        return [output[0].text for output in outputs]


set_model(LoriModel())
