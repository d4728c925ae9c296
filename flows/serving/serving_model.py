"""What MLflow serves: a base model with a registered adapter on it. MLflow runs this file itself.

The base is not in the artifact: it is brought in where the model is loaded, as a run does it. So
what answers a prompt needs this package installed beside MLflow.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

#: New tokens, unless the request's parameters say otherwise.
MAX_NEW_TOKENS = 128
#: Longer prompts lose their beginning, and so do those that the base has no positions for.
MAX_PROMPT = 4096
BATCH_SIZE = 16


class LoriModel(PythonModel):
    """Answers prompts with one adapter on its base."""

    def load_context(self, context: Any) -> None:
        """Bring in the base, put the adapter on it."""
        from lori_core import attaching, models, tuned
        from lori_core.adapter import check_base
        from lori_core.config import ModelSection, PromptSection
        from lori_core.data.prompts import check_template
        from lori_core.errors import AdapterError

        section = ModelSection.model_validate(context.model_config["model"])
        self.prompt = PromptSection.model_validate(context.model_config["prompt"])
        folder = models.prepare(section)
        adapter = tuned.open_model(Path(context.artifacts["adapter"]))
        if "changed_from" in adapter.info:
            raise AdapterError(
                f"{context.artifacts['adapter']}: not what was registered, and so not what was "
                "judged; register the model again"
            )
        check_base(adapter, models.identity(section, folder), "the registered adapter")
        self.tokenizer = models.load_tokenizer(folder)
        check_template(self.prompt, self.tokenizer)
        base = models.load(section, folder)
        if isinstance(adapter, tuned.Tuned):
            model = tuned.wear(base, adapter)
        else:
            model = attaching.wear(base, adapter)
        self.model = model.eval()

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> Any:
        """Return a data frame with a column `text`, a row for each prompt.

        Args:
            context: MLflow's.
            model_input: a data frame with a column `prompt`.
            params: `max_new_tokens`.

        Raises:
            InputError: for more new tokens than the base has positions.
        """
        from lori_core.data.limits import positions
        from lori_core.data.prompts import encode_prompt
        from lori_core.errors import InputError
        from lori_core.evaluation.generation import Request, generate

        limit = int((params or {}).get("max_new_tokens", MAX_NEW_TOKENS))
        most = positions(self.model.config)
        room = MAX_PROMPT if most is None else min(MAX_PROMPT, most - limit)
        if room < 1:
            raise InputError(f"max_new_tokens: {limit}, but the model has {most} positions")
        requests = [
            Request(encode_prompt(str(prompt), self.prompt, self.tokenizer, room)[0], limit)
            for prompt in model_input["prompt"]
        ]
        outputs = generate(self.model, self.tokenizer, requests, BATCH_SIZE, "answers")
        return pd.DataFrame({"text": [output[0].text for output in outputs]})


set_model(LoriModel())
