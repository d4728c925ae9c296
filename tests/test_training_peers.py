"""Fifty steps of ours and of the peers that compute the same: the same losses at each step."""

from decimal import Decimal
from pathlib import Path

import pytest
import torch

from benchmarks import training_peers
from lori_core import peft_names, training
from lori_core.adapter import ProjectionBlock, draw
from lori_core.data.prompts import Encoded
from lori_core.mask import top
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


@pytest.mark.parametrize(
    ("own", "peer", "micro"),
    [
        ("LoRI-D", "PEFT, A frozen", BATCH),
        ("LoRI-D", "PEFT, A frozen", BATCH // 2),
        ("LoRI-S", "authors' way", BATCH),
    ],
)
def test_fifty_steps_have_the_peer_s_losses(
    own: str, peer: str, micro: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("create_optimizer", "_get_train_sampler"):  # put back what a peer's run replaces
        monkeypatch.setattr(training.LoriTrainer, name, vars(training.LoriTrainer)[name])
    monkeypatch.setattr(training_peers, "RATE", 1e-2)
    found = {}
    for name in (own, peer):
        clock = training_peers.Clock()
        training_peers.PEERS[name](work(micro), clock, str(tmp_path / name))
        found[name] = clock.losses
    assert len(found[own]) == STEPS
    assert sum(found[own][-10:]) < 0.95 * sum(found[own][:10])
    assert found[own] == pytest.approx(found[peer], rel=1e-3)
