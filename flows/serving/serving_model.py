"""What MLflow serves: a base model with a registered adapter on it. MLflow runs this file itself.

The base is not in the artifact: it is brought in where the model is loaded, as a run does it. So
what answers a prompt needs this package installed beside MLflow.
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

#: New tokens, unless the request's parameters say otherwise.
MAX_NEW_TOKENS = 128
BATCH_SIZE = 16
#: No token is longer on average: a longer prompt is refused before it is read.
CHARACTERS_PER_TOKEN = 32


class RefusedError(MlflowException):
    """Why a request is not answered, in one line: MLflow's server would add the request to it."""

    def __init__(self, said: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        super().__init__(said, error_code=error_code)
        self.said = said

    def serialize_as_json(self) -> str:
        """Return the answer's body."""
        self.message = self.said
        return str(super().serialize_as_json())


@dataclass(frozen=True)
class Limits:
    """What a request may ask for; with a registered model, what its evaluation asked of it.

    Attributes:
        max_new_tokens: tokens to write for a prompt.
        max_prompt_length: tokens of a prompt.
        max_prompts: prompts in a request.
    """

    max_new_tokens: int = 1024
    max_prompt_length: int = 4096
    max_prompts: int = 64

    def new_tokens(self, params: Mapping[str, Any] | None) -> int:
        """Return how many tokens to write."""
        default = min(MAX_NEW_TOKENS, self.max_new_tokens)
        value = (params or {}).get("max_new_tokens", default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= self.max_new_tokens:
            raise RefusedError(
                f"max_new_tokens: {str(value)[:40]}; allowed: 1 to {self.max_new_tokens}"
            )
        return int(value)

    def prompts(self, model_input: pd.DataFrame) -> list[str]:
        """Return the prompts of a request."""
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
    """Return what a value is called in JSON; pandas makes NaN of null beside texts."""
    if value is None or (isinstance(value, float) and value != value):
        return "null"
    return type(value).__name__


class LoriModel(PythonModel):
    """Answers prompts with one adapter on its base."""

    def load_context(self, context: Any) -> None:
        """Bring in the base, put the adapter on it."""
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
                f"{context.artifacts['adapter']}: not what was registered, and so not what was "
                "judged; register the model again"
            )
        check_base(adapter, base_model.identity(section, folder), "the registered adapter")
        self.tokenizer = base_model.load_tokenizer(folder)
        check_template(self.prompt, self.tokenizer)
        base = base_model.load(section, folder)
        self.model = finetuned_model.apply_model(base, adapter)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> Any:
        """Return a data frame with a column `text`, a row for each prompt.

        Args:
            context: MLflow's.
            model_input: a data frame with a column `prompt`.
            params: `max_new_tokens`.

        Raises:
            RefusedError: the request is wrong (status 400), or failed here (500); one line, and
                no traceback, which MLflow's server would send along.
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
                f"the model failed ({type(error).__name__}); the server's log says more",
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
                raise RefusedError(
                    f"prompt {number}: is longer than the {room} tokens that there is room for"
                )
            requests.append(Request(tokens, limit))
        outputs = generate(self.model, self.tokenizer, requests, BATCH_SIZE, "answers")
        return [output[0].text for output in outputs]


set_model(LoriModel())
