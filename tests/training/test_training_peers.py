"""Fifty steps of ours and of the peers that compute the same: the same losses at each step."""

from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import training_pair, training_peers
from lori_core.adapters.adapter import ProjectionBlock, draw
from lori_core.adapters.masks.mask import top
from lori_core.data.prompts import Encoded
from lori_core.models import peft_names
from lori_core.training import trainer
from lori_core.training.kernels import flat_values
from support import tiny

STEPS, BATCH = 50, 4


def work(micro: int = BATCH) -> training_peers.Work:
    base, _, _ = tiny("llama")
    generator = torch.Generator().manual_seed(0)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(0, 256, (length,), generator=generator).tolist()

    start = ids(6, 7)
    # Few different rows, so that fifty steps learn them; half of them with one beginning.
    rows = [Encoded((start if n % 2 else []) + ids(2, 12), ids(1, 6), False) for n in range(10)]
    batches = [[rows[(BATCH * step + n) % 10] for n in range(BATCH)] for step in range(STEPS)]
    shapes = peft_names.target_shapes(base, training_peers.TARGETS)
    blocks = (ProjectionBlock(42, "bench", training_peers.RANK),)
    scores = {
        name: torch.rand(d_out, training_peers.RANK, generator=generator)
        for name, (_, d_out) in shapes.items()
    }
    return training_peers.Work(
        base,
        batches,
        259,
        {name: draw(blocks, name, d_in) for name, (d_in, _) in shapes.items()},
        top(scores, Decimal("0.9"), "model")[0],
        micro,
    )


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what a peer's run replaces of the engine."""
    for name in ("create_optimizer", "_get_train_sampler"):
        monkeypatch.setattr(trainer.LoriTrainer, name, vars(trainer.LoriTrainer)[name])
    monkeypatch.setattr(training_peers, "RATE", 1e-2)


@pytest.mark.parametrize(
    ("own", "peer", "micro"),
    [
        ("LoRI-D", "PEFT, A frozen", BATCH),
        ("LoRI-D", "PEFT, A frozen", BATCH // 2),
        ("LoRI-S", "authors' way", BATCH),
    ],
)
def test_fifty_steps_have_the_peer_s_losses(
    own: str, peer: str, micro: int, tmp_path: Path
) -> None:
    found = {}
    for name in (own, peer):
        clock = training_peers.Clock()
        training_peers.PEERS[name](work(micro), clock, str(tmp_path / name))
        found[name] = clock.losses
    assert len(found[own]) == STEPS
    assert sum(found[own][-10:]) < 0.95 * sum(found[own][:10])
    assert found[own] == pytest.approx(found[peer], rel=1e-3)


@pytest.mark.parametrize("name", ["LoRI-S", "PEFT", "authors' way"])
def test_each_step_is_timed_at_its_end_though_a_gpu_reports_it_later(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    make = torch.optim.AdamW.step

    def counted(self: Any, *args: Any) -> Any:
        steps.append(self)
        return make(self, *args)

    def seconds() -> float:
        return len(steps) / len(set(map(id, steps))) if steps else 0.0

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    monkeypatch.setattr(trainer, "reads_late", lambda device: True)
    clocks = SimpleNamespace(perf_counter=seconds, process_time=seconds)
    monkeypatch.setattr(training_peers, "time", clocks)
    given, clock = work(), training_peers.Clock()
    given.batches = given.batches[:4]
    training_peers.PEERS[name](given, clock, str(tmp_path))
    assert clock.times == clock.cpu == [0, 1, 2, 3, 4]
    assert len(clock.losses) == 4


@pytest.mark.parametrize("one_tensor", [False, True])
@pytest.mark.parametrize(("name", "sparse"), [("LoRI-D", False), ("LoRI-S", True)])
def test_a_side_of_the_pair_trains_as_the_engine_does(
    name: str, sparse: bool, one_tensor: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all trained values are one tensor, as on a GPU."""
    monkeypatch.setattr(flat_values, "suits", lambda _: one_tensor)
    monkeypatch.setattr(training_pair, "MICRO", 2)
    monkeypatch.setattr(training_pair, "PARTS", BATCH // 2)
    given = work(2)
    given.batches = given.batches[:5]
    optimizer = training_peers.PEERS[name](given, training_peers.Clock(), str(tmp_path))
    engine = [p.tolist() for group in optimizer.param_groups for p in group["params"]]
    with ExitStack() as ways:
        side = training_pair.Side.build(work(2), sparse, ways)
        for batch in given.batches:
            for start in (0, 2):
                side.learn(side.collate(batch[start : start + 2]))
            side.step()
    assert [p.tolist() for p in side.parameters] == engine
