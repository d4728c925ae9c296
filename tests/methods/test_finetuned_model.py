"""A trained model that is no B @ A: what was written is what is read, or it is refused."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lori_core.core.errors import AdapterError, InputError
from lori_core.methods import finetuned_model
from lori_core.methods.finetuned_model import FinetunedModel
from lori_core.models import peft_names
from lori_core.models.base_model import BaseIdentity

BASE = BaseIdentity("random:llama", "", "c" * 64, "w" * 64)
CONFIG = {"peft_type": "LORA", "use_dora": True, "r": 4, "lora_alpha": 8}


def saved(folder: Path, config: dict[str, Any] | None = CONFIG) -> Path:
    info = {"task": "math", "method": "dora", "content_key": "k" * 64}
    finetuned_model.save(FinetunedModel(BASE, {"x": torch.arange(6.0)}, config, info), folder)
    return folder


def test_any_flipped_bit_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tuned")
    chosen = random.Random(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in chosen.sample(range(len(content)), min(len(content), 120)):
            changed = bytes([content[place] ^ 1 << place % 7])
            path.write_bytes(content[:place] + changed + content[place + 1 :])
            same = path.suffix == ".json" and _same_json(path, content)
            if not same:
                with pytest.raises(InputError, match=str(folder)):
                    finetuned_model.load(folder)
        path.write_bytes(content)
    assert finetuned_model.load(folder).config == CONFIG


def _same_json(path: Path, before: bytes) -> bool:
    """Whether only the space between values was changed."""
    try:
        return bool(json.loads(path.read_bytes()) == json.loads(before))
    except ValueError:
        return False


@pytest.mark.parametrize("option", ["r", "lora_alpha", "use_dora"])
def test_a_setting_that_was_edited_is_refused(tmp_path: Path, option: str) -> None:
    folder = saved(tmp_path / "tuned")
    path = folder / peft_names.CONFIG_FILE
    path.write_text(json.dumps(CONFIG | {option: 16}))
    with pytest.raises(AdapterError, match=r"adapter_config\.json: .*not what was written"):
        finetuned_model.load(folder)
    path.unlink()
    with pytest.raises(AdapterError, match=r"adapter_config\.json: .*not what was written"):
        finetuned_model.load(folder)


def test_a_configuration_beside_a_full_model_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tuned", config=None)
    assert finetuned_model.load(folder).config is None
    (folder / peft_names.CONFIG_FILE).write_text(json.dumps(CONFIG))
    with pytest.raises(AdapterError, match="not what was written"):
        finetuned_model.load(folder)


def test_a_folder_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tuned")
    path = folder / finetuned_model.JSON_FILE
    said = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in said.items() if k not in ("config", "checksum")}))
    assert finetuned_model.load(folder).config == CONFIG
