"""A folder of adapters that servers read while the champion changes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from made import Made
from peft import PeftConfig
from peft.utils import load_peft_weights

from flows.serving import gate, serve_dir
from flows.tracking.registry import Registry
from lori_cli import main
from lori_core.adapters.peft_format import peft_file
from lori_core.config.model import ModelSection
from lori_core.models.base_identity import BaseIdentity
from lori_core.pipeline import params_file
from support import random_adapter

SWITCHES = 1000


def test_the_folder_follows_the_champion(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Made(folder, right={"math": 20})
    out = folder / "served"
    assert main(["serve-dir", "served", "--base", "my/base"]) == 0
    assert sorted(path.name for path in out.iterdir() if path.is_symlink()) == [
        "math",
        "merged-concat",
        "safety",
    ]
    config = PeftConfig.from_pretrained(str(out / "math"))
    assert (config.peft_type, config.base_model_name_or_path) == ("LORA", "my/base")
    math = (out / "math").readlink()

    params = params_file.load()
    first = gate.run_gate(folder, params, send=False)
    assert f"{out.resolve() / 'champion'}: models:/lori/1" in first.lines()
    one = (out / "champion").resolve()
    assert (out / "lori-1").resolve() == one
    Made(folder, rates={"math": 0.004}, right={"math": 30})
    assert gate.run_gate(folder, params, send=False).promoted
    two = (out / "champion").resolve()
    assert two != one
    assert (out / "previous").resolve() == one == (out / "lori-1").resolve()
    assert (out / "math").readlink() != math
    capsys.readouterr()
    assert main(["rollback"]) == 0
    assert "champion: models:/lori/1" in capsys.readouterr().out
    assert (out / "champion").resolve() == one
    assert not (out / "previous").exists()
    assert two.is_dir()  # for readers that began before
    index = json.loads((out / "index.json").read_text())
    assert index["adapters"]["champion"]["source"] == "models:/lori/1"
    assert main(["serve-dir", "served", "--base", "my/base"]) == 0
    assert capsys.readouterr().out == "served: is up to date\n"


def test_adapters_of_another_base_are_not_given_the_name_of_the_servers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Made(folder)
    gate.run_gate(folder, params_file.load(), send=False)
    assert main(["serve-dir", "served", "--base", "my/base"]) == 0
    path, out = folder / "params.yaml", folder / "served"
    path.write_text(path.read_text().replace("random:llama", "random:mistral"))
    index = json.loads((out / "index.json").read_text())
    capsys.readouterr()

    # What follows the champion still is of the base that the server was started with.
    assert serve_dir.update_all(folder, "lori") == []
    assert json.loads((out / "index.json").read_text()) == index

    assert main(["serve-dir", "other", "--base", "my/mistral"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{name}: {source} is left out: it was made for the base 'random:llama', not for "
        "'my/mistral'"
        for name, source in sorted(
            {
                "champion": "models:/lori/1",
                "lori-1": "models:/lori/1",
                "math": "artifacts/math/adapter",
                "merged-concat": "artifacts/merged/concat",
                "safety": "artifacts/safety/adapter",
            }.items()
        )
    ]
    assert not any(place.is_symlink() for place in (folder / "other").iterdir())

    # The adapters' own name of their base means that base, whatever params.yaml has by now.
    assert main(["serve-dir", "third", "--base", "random:llama"]) == 0
    config = PeftConfig.from_pretrained(str(folder / "third" / "champion"))
    assert config.base_model_name_or_path == "random:llama"


def test_of_two_bases_only_the_named_ones_adapters_are_served() -> None:
    model = ModelSection(name_or_path="b")
    bases = {
        "first": BaseIdentity("a", "", "", ""),
        "second": BaseIdentity("b", "", "", ""),
    }
    assert serve_dir.ServedBase("a", model).takes(bases) == {"first"}
    assert serve_dir.ServedBase("b", model).takes(bases) == {"second"}
    assert serve_dir.ServedBase("/models/b", model).takes(bases) == {"second"}


def test_an_adapter_without_a_name_is_deleted_after_a_while(folder: Path) -> None:
    Made(folder)
    out, params = folder / "served", params_file.load()
    serve_dir.serve_dir(folder, params, out)
    former = (out / "math").resolve()
    Made(folder, rates={"math": 0.004})
    serve_dir.serve_dir(folder, params, out)
    assert former.is_dir()
    mark = out / ".versions" / f".unused-since-{former.name}"
    os.utime(mark, (0, 0))
    serve_dir.serve_dir(folder, params, out)
    assert not former.exists()
    assert not mark.exists()
    assert (out / "math").is_dir()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.txt", "mine", "is not empty"),
        ("index.json", "{}", "was not written by lori serve-dir"),
    ],
)
def test_a_folder_of_others_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, reason: str
) -> None:
    Made(folder)
    (folder / "served").mkdir()
    (folder / "served" / name).write_text(content)
    assert main(["serve-dir", "served"]) == 2
    assert reason in capsys.readouterr().err
    assert [path.name for path in (folder / "served").iterdir()] == [name]


def test_a_file_with_the_name_of_an_adapter_is_refused(folder: Path) -> None:
    Made(folder)
    assert main(["serve-dir", "served"]) == 0
    (folder / "served" / "math").unlink()
    (folder / "served" / "math").mkdir()
    assert main(["serve-dir", "served"]) == 2
    assert list((folder / "served" / "math").iterdir()) == []


def test_a_folder_that_cannot_be_updated_does_not_undo_a_promotion(folder: Path) -> None:
    Made(folder)
    assert main(["serve-dir", "served"]) == 0
    (folder / "served" / "champion").mkdir()
    outcome = gate.run_gate(folder, params_file.load(), send=False)
    assert outcome.promoted
    assert "still serves the former adapters" in outcome.lines()[-1]
    assert Registry(folder).at("lori", "champion") is not None


@pytest.mark.parametrize("ranks", [(4, 4), (4, 8)])
def test_a_reader_never_sees_half(tmp_path: Path, ranks: tuple[int, int]) -> None:
    """Config and weights that PEFT reads are of one adapter, while the link moves 1,000 times."""
    for number, rank in enumerate(ranks):
        adapter = random_adapter(key="math", rank=rank, seed=number)
        peft_file.export_peft(adapter, tmp_path / ".versions" / str(number))
    serve_dir._point(tmp_path, "champion", "0")
    whole = [_content(tmp_path / ".versions" / str(number)) for number in (0, 1)]
    assert whole[0] != whole[1]
    moving = threading.Event()
    seen, failures = [0, 0], []

    def read() -> None:
        while not moving.is_set() or not all(seen):
            # One configuration serves both: then a path that is not resolved is whole, too.
            place = tmp_path / "champion"
            try:
                seen[whole.index(_content(place if ranks[0] == ranks[1] else place.resolve()))] += 1
            except Exception as error:
                failures.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for switch in range(SWITCHES):
        assert serve_dir._point(tmp_path, "champion", str((switch + 1) % 2))
        if switch % 10 == 0:
            os.sched_yield()
    moving.set()
    # The reader has to meet both, even if all 1,000 switches fell between two of its reads.
    while reader.is_alive() and not all(seen):
        serve_dir._point(tmp_path, "champion", str(int(seen[1] == 0)))
    reader.join()
    assert failures == []
    assert min(seen) > 0


def _content(place: Path) -> tuple[int, int, bytes]:
    config = PeftConfig.from_pretrained(str(place))
    weights = load_peft_weights(str(place), device="cpu")
    names = sorted(weights)
    return config.r, config.lora_alpha, b"".join(weights[n].numpy().tobytes() for n in names)
