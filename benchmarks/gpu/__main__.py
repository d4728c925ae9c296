"""Training on one GPU compared with other implementations, in under five minutes.

It needs no hub, tokenizer or data set: models have the shapes of Llama-3-8B and Llama-3.2-1B and
random weights, rows have the lengths of real ones. Each implementation trains each kind of rows in
a process of its own, with more and more rows at once while that is faster and fits. Every batch is
new to the process that trains it. A part that fails prints its error in full, and the others run.

    python -m benchmarks.gpu                  # table, checks, gpu.json and gpu.png
    python -m benchmarks.gpu --profile        # where the time of a step goes, by kind of kernel
    python -m benchmarks.gpu --tiny           # on a CPU, in seconds: tests this program only
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import kernels, part, peers, report, work
from benchmarks.gpu.clock import Profiled
from benchmarks.gpu.processes import Processes, one_gpu

DEFAULT_PEERS = ("LoRI-S", "LoRI-D", "PEFT + Liger", "PEFT", "TRL, packed", "Unsloth", "axolotl")
PROFILED_PEERS = ("LoRI-S", "LoRI-D", "PEFT + Liger")
#: The most important rows come first, in case the time does not suffice for all.
PARTS = (("8b", "gsm8k"), ("8b", "long"), ("8b", "short"), ("1b", "gsm8k"))
#: Seconds that one process may take after its imports, and without which none starts.
PART_SECONDS, LEAST_SECONDS = 100.0, 15.0
PACKAGES = ("torch", "transformers", "peft", "accelerate", "liger-kernel", "trl", "triton",
            "flash-attn", "unsloth", "axolotl")  # fmt: skip


@dataclass
class Result:
    """What was measured so far.

    Attributes:
        machine: the card and the versions.
        runs: a row for each run; see `part.measure`.
        failures: the parts whose process failed, and why.
        not_run: the parts that were not run, and why.
    """

    machine: dict[str, Any]
    runs: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a part failed for another reason than memory."""
        return bool(self.failures) or any(run.get("fits") for run in self.runs)


def machine() -> dict[str, Any]:
    """Return the versions of what is measured; this process does not touch the card itself."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    driver = Path("/proc/driver/nvidia/version")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "cuda": torch.version.cuda,
        "versions": versions,
        "driver": driver.read_text().splitlines()[0] if driver.is_file() else None,
        "card": None,  # known from the first run
    }


def orders(options: argparse.Namespace, results: Path) -> Iterator[part.Order]:
    """Yield the orders, the most important first."""
    chosen = options.peers or (PROFILED_PEERS if options.profile else DEFAULT_PEERS)
    cuda = torch.cuda.is_available()
    profiled: Profiled = "host" if options.profile else "device" if cuda else "nothing"
    for shape, kind in _parts(options):
        for peer in chosen:
            rows = work.rows_of(kind, shape)
            yield part.Order(peer, kind, shape, options.steps, rows.at_once, profiled, str(results))


def _parts(options: argparse.Namespace) -> list[tuple[str, str]]:
    if options.tiny:
        return [("tiny", kind) for kind in options.kinds or work.KINDS]
    shapes = options.shapes or ("8b", "1b")
    kinds = options.kinds or (("gsm8k",) if options.profile else tuple(work.KINDS))
    if options.shapes and options.kinds:
        return [(shape, kind) for shape in shapes for kind in kinds]
    return [(shape, kind) for shape, kind in PARTS if shape in shapes and kind in kinds]


def run(options: argparse.Namespace, result: Result, results: Path) -> None:
    """Run all parts that the time suffices for; save after each.

    Args:
        options: those of the command line.
        result: gets what was measured.
        results: the file to which the parts write.
    """
    end = time.monotonic() + 60 * options.minutes
    todo = deque(_installed(orders(options, results), result))
    logs = options.out / "gpu-logs"
    logs.mkdir(parents=True, exist_ok=True)
    ahead = 1 if options.tiny else min(32, 2 * (os.cpu_count() or 1))
    command = [sys.executable, "-m", "benchmarks.gpu.part"]
    with Processes(command, logs, ahead).open() as processes:
        while todo:
            order, left = todo.popleft(), end - time.monotonic()
            if left < LEAST_SECONDS:
                why = f"the time was over (--minutes {options.minutes:g})"
                result.not_run.append(f"{_name(order)}: {why}")
                continue
            limit = min(left, options.part_seconds)
            failed, log = _measured(order, options, processes, 1 + len(todo), limit)
            new = _take(result, results)
            failed = failed or (None if new else "it measured nothing")
            if failed:
                result.failures.append(f"{_name(order)}: {failed}")
            _show(order, new, options)
            if log and (failed or any(row.get("fits") for row in new)):
                text = log.read_text(encoding="utf-8", errors="replace")
                print(f"\n{_name(order)} failed: {failed or ''}; its output:\n{text}", flush=True)
            if len(new) == 1 and new[0].get("fits") is False and order.at_once > 1:
                # Its process has ended, so that fewer rows start on an empty device.
                todo.appendleft(replace(order, at_once=order.at_once // 2))
            _save(result, options)


def _measured(
    order: part.Order, options: argparse.Namespace, processes: Processes, needed: int, limit: float
) -> tuple[str | None, Path | None]:
    """Measure a part; return why it failed, or None, and its log, if it has one."""
    if not options.here:
        return processes.run(json.dumps(asdict(order)), needed, limit)
    try:
        part.measure(order)
    except Exception as error:
        traceback.print_exc()
        return repr(error), None
    return None, None


def _installed(all_orders: Iterable[part.Order], result: Result) -> Iterator[part.Order]:
    """Yield the orders whose implementation is installed; note the others."""
    for order in all_orders:
        missing = peers.missing(order.peer)
        if missing is None:
            yield order
        elif (why := f"{order.peer}: {missing} is not installed") not in result.not_run:
            result.not_run.append(why)


def _name(order: part.Order) -> str:
    return f"{order.shape}, {order.kind}, {order.peer}"


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the results so far; the last line of a process that was killed may be incomplete."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def _take(result: Result, results: Path) -> list[dict[str, Any]]:
    """Add to a result what the parts have written since the last call; return it."""
    before, result.runs = len(result.runs), _read(results)
    new = result.runs[before:]
    result.machine |= {name: new[0][name] for name in ("card", "card_gb") if new}
    return new


def _show(order: part.Order, new: list[dict[str, Any]], options: argparse.Namespace) -> None:
    print(f"{order.shape}, {order.kind}", flush=True)
    for row in new:
        print("  " + report.line(row, max(each["matrix_peak"] for each in new)), flush=True)
        if error := row.get("profile_error"):
            print(f"  its profile failed: {error}", flush=True)
        if options.profile and "profile" in row:
            print("\n".join(kernels.lines(kernels.Profile(**row["profile"]))), flush=True)


def _save(result: Result, options: argparse.Namespace) -> None:
    path = options.out / "gpu.json"
    path.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")


def conclude(result: Result, options: argparse.Namespace) -> bool:
    """Print the tables, checks and goals and draw the picture; return whether all went well."""
    measured = [run for run in result.runs if "error" not in run]
    held = bool(measured)
    if measured:
        print("\n".join(report.table(measured)))
        results = list(report.checks(measured))
        print(f"\n{sum(holds for holds, _ in results)} of {len(results)} checks hold")
        for holds, what in results:
            if not holds:
                print(f"  FAILED: {what}")
        held = all(holds for holds, _ in results)
        if not options.tiny:
            print("\ngoals (measured, goal):")
            for reached, what in report.goals(measured):
                print(f"  {'reached' if reached else 'MISSED '}  {what}")
        try:
            report.draw(measured, options.out / "gpu.png")
        except Exception:
            traceback.print_exc()
            held = False
    for title, lines in (("failed", result.failures), ("not run", result.not_run)):
        for line in lines:
            print(f"{title}: {line}")
    print(f"{options.out / 'gpu.json'}", flush=True)
    return held and not result.failed


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--peers", nargs="+", choices=peers.PEERS, help="default: all installed")
    parser.add_argument("--kinds", nargs="+", choices=work.KINDS)
    parser.add_argument("--shapes", nargs="+", choices=("8b", "1b"))
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each run")
    parser.add_argument("--minutes", type=float, default=4.5, help="the time for all parts")
    parser.add_argument("--part-seconds", type=float, default=PART_SECONDS, help="of each process")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on a CPU, for tests")
    parser.add_argument("--here", action="store_true", help="all parts in this process")
    parser.add_argument("--out", type=Path, default=Path(".lori"), help="the folder for results")
    options = parser.parse_args(argv)
    if not options.tiny and not torch.cuda.is_available():
        parser.error("no CUDA device is visible; --tiny runs a tiny model on the CPU")
    if options.steps < 1:
        parser.error(f"--steps {options.steps}: at least one step has to be timed")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 0 if every part ran and every check holds, otherwise 1."""
    os.environ.update(one_gpu(os.environ))
    options = arguments(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")
    if options.tiny:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        torch.set_num_threads(1)
    result = Result(machine())
    print(json.dumps(result.machine, indent=1), flush=True)
    results = options.out / "gpu-runs.jsonl"
    results.unlink(missing_ok=True)
    try:
        run(options, result, results)
    except KeyboardInterrupt:
        result.failures.append("interrupted")
    except Exception as error:  # what was measured is still worth its table
        traceback.print_exc()
        result.failures.append(repr(error))
    _take(result, results)  # a part that was interrupted has measured something, too
    _save(result, options)
    try:
        return 0 if conclude(result, options) else 1
    except Exception:  # the measurements are printed and saved already
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    # A time limit from outside ends the parts, and what was measured is still printed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
