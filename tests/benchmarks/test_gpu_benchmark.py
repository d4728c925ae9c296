"""The benchmark of a GPU, with a tiny model on the CPU; a part that fails stops no other."""

import io
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import kernels, part, peers, report, work
from benchmarks.gpu.clock import WARM, Clock
from lori_core.data.packing import pack_batch
from lori_core.data.prompts import Encoded


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put back the environment and the threads that the benchmark sets."""
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Run the benchmark in this process; return its exit code and what it saved."""
    code = gpu.main(["--tiny", "--here", "--steps", "1", "--out", str(folder), *more])
    return code, json.loads((folder / "gpu.json").read_text())


def test_all_parts_of_a_tiny_model_run_and_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, saved = run(tmp_path, "--peers", "LoRI-S", "LoRI-D", "PEFT")
    printed = capsys.readouterr().out
    assert code == 0, printed
    measured = [(r["kind"], r["peer"], r["at_once"]) for r in saved["runs"]]
    for kind in work.KINDS:
        rows = work.rows_of(kind, "tiny")
        for peer in ("LoRI-S", "LoRI-D"):
            assert (kind, peer, rows.batch) in measured
        assert (kind, "PEFT", rows.at_once) in measured
    for measurement in saved["runs"]:  # counted forward passes
        if measurement["peer"] == "PEFT" or measurement["at_once"] == 4:
            assert measurement["rows_a_pass"] == measurement["at_once"]
        assert f"### tiny, {work.KINDS[kind].what}, on CPU" in printed
    assert saved["machine"]["card"] == "CPU"
    assert saved["machine"]["versions"]["torch"] == torch.__version__
    assert {len(r["losses"]) for r in saved["runs"]} == {WARM + 1}
    assert (tmp_path / "gpu.png").stat().st_size > 10_000
    checks = list(report.checks(saved["runs"]))
    assert f"{len(checks)} of {len(checks)} checks hold" in printed
    # The first gradients of LoRI-D and PEFT were compared, not only that there were some.
    assert any("PEFT and LoRI-D: gradient norms of step 1" in what for _, what in checks)


def test_a_part_that_fails_prints_its_error_and_the_others_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(peers.PEERS, "PEFT", failing)
    code, saved = run(tmp_path, "--kinds", "long", "--peers", "PEFT", "LoRI-S")
    captured = capsys.readouterr()
    assert code == 1
    assert "Traceback" in captured.err
    assert "RuntimeError: no kernel image is available" in captured.err
    assert "failed: RuntimeError: no kernel image is available" in captured.out
    assert [r["peer"] for r in saved["runs"] if "error" not in r] == ["LoRI-S", "LoRI-S"]


def test_a_model_that_cannot_be_built_stops_no_other_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = work.base
    built = []

    def fails_once(shape: str, device: str) -> Any:
        built.append(shape)
        if len(built) == 1:
            raise RuntimeError("CUDA error: device busy")
        return own(shape, device)

    monkeypatch.setattr(work, "base", fails_once)
    code, saved = run(tmp_path, "--kinds", "short", "--peers", "LoRI-D", "LoRI-S")
    assert code == 1
    assert saved["failures"] == [
        "tiny, short, LoRI-D: RuntimeError('CUDA error: device busy')",
    ]
    assert {r["peer"] for r in saved["runs"]} == {"LoRI-S"}
    assert "RuntimeError: CUDA error: device busy" in capsys.readouterr().err


def test_a_part_as_a_program_waits_for_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, results = tmp_path / "ready", tmp_path / "runs.jsonl"
    order = part.Order("LoRI-S", "short", "tiny", 1, 4, "nothing", str(results))
    monkeypatch.setattr(sys, "argv", ["part", str(ready)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asdict(order)) + "\n"))
    part.main()
    assert ready.exists()
    (row,) = gpu._read(results)
    assert (row["peer"], row["at_once"], row["untrained"]) == ("LoRI-S", 4, [])


def test_an_incomplete_line_of_a_killed_process_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    part._write(path, {"peer": "PEFT"})
    with path.open("a") as file:
        file.write('{"peer": "LoRI-')
    part._write(path, {"peer": "LoRI-D"})
    assert gpu._read(path) == [{"peer": "PEFT"}, {"peer": "LoRI-D"}]


def test_rows_that_do_not_fit_are_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = peers.PEERS["LoRI-S"]

    def small(given: Any, clock: Clock, folder: Path) -> Any:
        if given.micro > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return own(given, clock, folder)

    monkeypatch.setitem(peers.PEERS, "PEFT", small)
    code, saved = run(tmp_path, "--kinds", "short", "--peers", "PEFT")
    assert [(r["at_once"], r.get("fits")) for r in saved["runs"]] == [
        (2, False),
        (1, None),
        (2, False),
    ]
    assert code == 0


def test_what_an_interrupted_part_has_measured_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = peers.PEERS["LoRI-S"]

    def stopped(given: Any, clock: Clock, folder: Path) -> Any:
        if given.micro > 2:
            raise KeyboardInterrupt
        return own(given, clock, folder)

    monkeypatch.setitem(peers.PEERS, "PEFT", stopped)
    code, saved = run(tmp_path, "--kinds", "short", "--peers", "PEFT")
    assert code == 1
    assert [(r["peer"], r["at_once"]) for r in saved["runs"]] == [("PEFT", 2)]
    assert saved["failures"] == ["interrupted"]
    assert saved["machine"]["card"] == "CPU"
    assert "| PEFT | 2 |" in capsys.readouterr().out


def test_no_part_starts_when_the_time_is_over(tmp_path: Path) -> None:
    code, saved = run(tmp_path, "--minutes", "0.1", "--peers", "LoRI-S", "--kinds", "long")
    assert code == 1
    assert saved["runs"] == []
    assert saved["not_run"] == ["tiny, long, LoRI-S: the time was over (--minutes 0.1)"]


def test_the_profile_names_the_kinds_of_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, saved = run(tmp_path, "--profile", "--peers", "LoRI-S", "--kinds", "short")
    profile = saved["runs"][0]["profile"]
    assert {"matrix products", "attention"} <= set(profile["kinds"])
    assert profile["launches"] > 100
    assert "%" in capsys.readouterr().out


def test_a_gradient_of_zero_or_another_loss_is_seen() -> None:
    def one(peer: str, **changes: Any) -> dict[str, Any]:
        run = {"peer": peer, "kind": "long", "shape": "tiny", "at_once": 1, "number": 0,
               "losses": [6.0, 5.9], "gradient_norms": [1.0, 1.0], "untrained": []}  # fmt: skip
        return run | changes

    def failed(*runs: dict[str, Any]) -> list[str]:
        return [what for holds, what in report.checks(runs) if not holds]

    own = one("LoRI-D")
    assert failed(own, one("PEFT")) == []
    assert len(failed(own, one("PEFT", gradient_norms=[0.0, 1.0]))) == 2
    assert len(failed(own, one("PEFT", gradient_norms=[None, 1.0]))) == 2
    assert len(failed(own, one("PEFT", untrained=["model.layers.0.mlp.up_proj"]))) == 1
    assert len(failed(own, one("PEFT", losses=[6.0, 5.5]))) == 1
    assert failed(own, one("PEFT", losses=[])) == [
        "tiny, long, PEFT and LoRI-D: only 0 losses were logged"
    ]
    # With a mask the second loss and the gradient are others.
    assert failed(own, one("LoRI-S", losses=[6.0, 5.5], gradient_norms=[0.3, 0.3])) == []


def test_rows_have_the_lengths_and_beginnings_of_real_ones() -> None:
    for kind, tokens, nodes in (("gsm8k", 7661, 7661 - 31 * 24), ("short", 2646, 1558)):
        counts = []
        for batch in work.batches(kind, "8b", 0, 8):
            assert len(batch) == 32
            counts.append((sum(map(len, batch)), pack_batch(batch)["input_ids"].numel()))
        mean = torch.tensor(counts).float().mean(0).tolist()
        assert mean == pytest.approx([tokens, nodes], rel=0.06)
    assert {len(row) for row in work.batches("long", "8b", 0, 1)[0]} == {2048}


def test_sets_of_batches_have_no_row_in_common() -> None:
    sets = [work.batches("short", "8b", number, 4) for number in range(3)]
    rows = [tuple(row.prompt) for each in sets for batch in each for row in batch]
    assert len(set(rows)) == len(rows)


def test_needed_operations_are_those_of_the_formula() -> None:
    sizes = work.Sizes(linear=1000, low_rank=100, B=60, head=50, attention=8)
    rows = [Encoded([1, 2, 3], [4, 5], False)]
    expected = 5 * (4 * 1000 + 4 * 100 + 2 * 60) + 4 * 2 * 50 + 7 * 25 * 8
    assert sizes.needed(rows) == expected
    llama = replace(work.Sizes.of(work.base("tiny", "cpu")))
    assert llama.linear == 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    assert llama.head == 512 * 64


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_tst_256x128_64x4_2x1_v_bz_coopA_TNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "matrix products"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<...>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>",
         "copies and fills"),
        ("void at::native::vectorized_elementwise_kernel<8, at::native::AUnaryFunctor<mul>>",
         "other element-wise"),
        ("_rms_norm_forward_kernel", "norms"),
        ("_swiglu_forward_kernel", "gated activation"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>",
         "optimizer and clipping"),
        ("Memcpy DtoD (Device -> Device)", "copies and fills"),
        ("void at::native::indexSelectLargeIndex<c10::BFloat16>", "gathers and scatters"),
        ("ncclDevKernel", "other"),
    ],
)  # fmt: skip
def test_a_kernel_s_name_gives_its_kind(name: str, kind: str) -> None:
    assert kernels.kind(name) == kind


def test_kernels_that_overlap_count_once() -> None:
    assert kernels._covered([(0, 10), (5, 12), (20, 21), (6, 7)]) == 13


def event(name: str, start: float, end: float, device: str = "CUDA", range_: bool = False) -> Any:
    """Return an event as the profiler has it, times in microseconds."""
    span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
    return SimpleNamespace(
        name=name, device_type=SimpleNamespace(name=device), time_range=span,
        is_user_annotation=range_, self_cpu_time_total=end - start,
    )  # fmt: skip


def test_a_profile_of_a_gpu_counts_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = [
        event("nvjet_tst_gemm", 0, 1e6),
        event("void flash_fwd_kernel", 0.5e6, 1.5e6),
        event("nvjet_tst_gemm", 2e6, 3e6),
        event("Optimizer.step#AdamW.step", 0, 9e6, range_=True),
        event("cudaLaunchKernel", 0, 4e6, device="CPU"),
    ]
    profile = kernels.read(SimpleNamespace(events=lambda: found), wall=5.0)
    assert (profile.busy, profile.launches) == (2.5, 3)
    assert profile.kinds == {"matrix products": 2.0, "attention": 1.0}
    assert profile.names[0] == ("nvjet_tst_gemm", 2.0, 2)
    assert profile.host == [("cudaLaunchKernel", 4.0, 1)]
    text = kernels.lines(profile)
    assert text[0].startswith("2500 ms on the device in 3 launches")
    assert text[1].split() == ["66.7", "%", "2000.0", "ms", "matrix", "products"]
    with pytest.raises(RuntimeError, match="saw no kernel"):
        kernels.read(SimpleNamespace(events=lambda: found[4:]), wall=5.0)


def test_ours_takes_the_whole_batch_and_others_are_searched() -> None:
    order = part.Order("PEFT", "gsm8k", "8b", 1, 8, "nothing", "")
    assert part._sizes(order, 32) == [8, 16, 32]
    assert part._sizes(replace(order, peer="LoRI-S"), 32) == [8, 32]
