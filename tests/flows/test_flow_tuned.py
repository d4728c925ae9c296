"""Results that are no B @ A, on their way from training to what is served."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made import TRAINING, Made, _verdict

from flows.lineage import why
from flows.lineage.verification.verify import verify
from flows.serving import gate
from flows.tracking.registry import CHAMPION
from lori_cli import main
from lori_core.config import LoriSection
from lori_core.core import source_code
from lori_core.core.files.atomic import digest, write_json, write_jsonl
from lori_core.methods import catalogue, finetuned_model, training_method
from lori_core.methods.finetuned_model import FinetunedModel
from lori_core.pipeline import params_file
from support import TARGETS, refused, tiny

# VeRA's projections are drawn again from their seed, as its authors' files do.
pytestmark = pytest.mark.filterwarnings("ignore:Specified to not (save|load) vera_A")
ADAPTER = "artifacts/math/adapter"


def trained(method: str) -> FinetunedModel:
    """Return what a method makes of a tiny base, with random values where it trains."""
    model, _, base = tiny("llama")
    section = LoriSection(rank=4, lora_alpha=8, target_modules=TARGETS["llama"])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        run = catalogue.METHODS[method](
            training_method.Job(section, catalogue.options(method, {}, "method"))
        )
        built = run.attach(model)
        for parameter in built.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
    depends = {"section": TRAINING, "code": source_code.digests(["training/trainer.py"])}
    info = {"task": "math", "stage": "train@math", "method": method, "parents": []}
    info |= {"content_key": digest(depends), "depends": depends}
    provenance = training_method.Provenance(
        base, torch.float32, fan_in_fan_out=False, matched_by=(), info=info
    )
    result = run.collect(built, provenance)
    assert isinstance(result, FinetunedModel)
    return result


class MadeByMethod(Made):
    """A finished run of one task by a method without a mask, and without a merge."""

    def __init__(self, folder: Path, method: str, right: int = 30) -> None:
        self.method = method
        super().__init__(folder, tasks=("math",), right={"math": right})

    def _calibrate(self, task: str) -> None: ...

    def _mask(self, task: str) -> None: ...

    def _merge(self) -> None: ...

    def _train(self, task: str) -> None:
        finetuned_model.save(trained(self.method), self.folder / ADAPTER)
        metrics = f"metrics/train/{task}.json"
        write_json(self.folder / metrics, {})
        data = [f"data/{task}/train.jsonl"]
        params = {"training": dict(TRAINING)}
        self._stage(f"train@{task}", data, [ADAPTER, metrics], params, ["training/trainer.py"])

    def _evaluate(self) -> None:
        folder, right = "artifacts/evaluations/adapters/math", self.right["math"]
        path = self.folder / folder / "adapter/math.jsonl"
        write_jsonl(path, [_verdict("math", n, n < right, safety=False) for n in range(40)])
        self._stage(
            "evaluate_adapters@math", ["data", ADAPTER], [folder], {}, ["evaluation/gate.py"]
        )


@pytest.mark.parametrize("method", ["dora", "ia3", "vera"])
def test_an_adapter_of_another_kind_is_judged_registered_and_served(
    folder: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow
    from peft import PeftModel

    MadeByMethod(folder, method)
    outcome = gate.run_gate(folder, params_file.load(folder / "params.yaml"), ADAPTER, send=False)
    assert outcome.lines()[-1] == "lori version 1 is champion: the first, there was none before it"

    (stored,) = (folder / "mlruns/models").rglob("adapter_model.safetensors")
    tokens = torch.arange(12).view(1, 12)
    ours, base = tiny("llama")[0], tiny("llama")[0]
    stock = PeftModel.from_pretrained(tiny("llama")[0], str(stored.parent))
    with torch.inference_mode(), finetuned_model.applied(ours, trained(method)) as model:
        expected = model(input_ids=tokens).logits
        assert torch.equal(stock(input_ids=tokens).logits, expected)
        assert not torch.equal(base(input_ids=tokens).logits, expected)
    served = mlflow.pyfunc.load_model(f"models:/lori@{CHAMPION}")
    answer = served.predict([{"prompt": "What is 17 + 25?"}], params={"max_new_tokens": 2})
    assert list(answer.columns) == ["text"]

    assert main(["why", ADAPTER]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{ADAPTER}  [adapter]  key {trained(method).info['content_key'][:12]}")
    assert f"method {method}\n" in shown
    assert main(["push", ADAPTER, "me/adapter", "--dry-run", "out"]) == 0
    card = Path("out/README.md").read_text()
    assert f"An adapter of the task math, trained by {method} (" in card
    assert "LoRI" not in card
    PeftModel.from_pretrained(tiny("llama")[0], "out")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "tuned.json"])
def test_what_was_tampered_with_is_found_by_name(folder: Path, name: str) -> None:
    MadeByMethod(folder, "ia3")
    path = folder / ADAPTER / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    (problem,) = verify(why.lineage_of(why.resolve(ADAPTER, folder)))
    assert problem.name == f"{ADAPTER}/{name}"
    assert f"bytes {len(content) // 2}-{len(content) // 2} differ" in problem.text


def test_a_full_model_is_compared_and_looked_into_but_is_no_adapter(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MadeByMethod(folder, "full", right=20)
    MadeByMethod(tmp_path / "other", "dora", right=30)
    assert main(["why", ADAPTER]) == 0
    assert f"{ADAPTER}  [full model]" in capsys.readouterr().out
    assert main(["compare", ADAPTER, str(tmp_path / "other" / ADAPTER)]) == 0
    assert "75 [59-87]; Δ +25.0" in capsys.readouterr().out
    said = f"{ADAPTER}: is a full model, with all weights of its base trained; only adapters can "
    assert f"{said}be served" in refused(capsys, "gate", ADAPTER)
    assert f"{said}be registered" in refused(capsys, "register", ADAPTER)
    assert f"{said}have a card" in refused(capsys, "card", ADAPTER)
    assert f"{said}be sent" in refused(capsys, "push", ADAPTER, "me/it", "--dry-run", "out")
