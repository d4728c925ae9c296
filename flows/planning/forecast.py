"""`lori plan`: forecast which stages would run and why, and their time, memory and disk space."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.execution import sharing
from flows.planning.reasons import in_short
from flows.planning.schedule import Schedule, simulate
from flows.tracking.rows import read_from
from flows.versioning import graph
from lori_core.core.tracking import ROWS_FOLDER
from lori_core.data.example import SPLITS

if TYPE_CHECKING:
    from lori_core.config import Params
    from lori_core.cost import Device, Estimate, Rate

PULLED = "pulled"
#: What the other values of `Split.basis` say about a split's number of examples.
BASES = {
    "published": "as in the published sets",
    "sizes": "the most that tasks.T.sizes allows",
    "assumed": "a guess",
}


@dataclass(frozen=True)
class Line:
    """One stage of the forecast.

    Attributes:
        stage: the stage's name.
        state: `keep` (up to date), `cached` (its outputs come from the run cache), or `run`.
        why: the reasons why it is stale.
        estimate: its cost; None if it does not run.
        measured: seconds that its command took the last time it ran here.
    """

    stage: str
    state: str
    why: list[str]
    estimate: Estimate | None
    measured: float | None


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run.

    Attributes:
        lines: the stages.
        schedule: when each stage would start and end.
        gpus: the number of GPUs.
        device: what each stage runs on.
        parts: the part of a GPU that each sharing stage gets, out of `sharing.CARD`.
        sizes: by `Split.basis`, the splits whose number of examples is known by it.
        rates: the shares of the device's peak that the times are computed with.
    """

    lines: list[Line]
    schedule: Schedule
    gpus: int
    device: Device
    parts: Mapping[str, int]
    sizes: dict[str, list[str]]
    rates: tuple[Rate, ...] = ()

    @property
    def assumed(self) -> list[str]:
        """The splits whose data was not pulled, so that their numbers of tokens are assumed."""
        return [
            split for basis, splits in self.sizes.items() if basis != PULLED for split in splits
        ]

    @property
    def running(self) -> list[Line]:
        """The lines of the stages whose commands would run."""
        return [line for line in self.lines if line.state == "run"]

    @property
    def at_once(self) -> int:
        """The largest number of stages sharing GPUs that run at once."""
        begins, ends = self.schedule.begins, self.schedule.ends
        return max(
            (
                sum(begins[other] <= begins[name] < ends[other] for other in self.parts)
                for name in self.parts
            ),
            default=0,
        )

    def totals(self) -> dict[str, Any]:
        """Return the totals: GPU-hours, wall time in seconds, operations, memory, disk in bytes."""
        estimates = [(line, line.estimate) for line in self.running if line.estimate]
        heavy = [e for line, e in estimates if e.memory]
        written = sum(e.written for _, e in estimates)
        return {
            "stages": len(self.lines),
            "to_run": len(self.running),
            "cached": sum(line.state == "cached" for line in self.lines),
            "device": self.device.name,
            "gpus": self.gpus,
            "gpu_hours": sum(e.seconds for e in heavy) / 3600,
            "flops": sum(e.flops for _, e in estimates),
            "wall_seconds": self.schedule.seconds,
            "at_once": self.at_once,
            "critical_path": list(self.schedule.critical),
            "peak_memory_bytes": max((e.memory for e in heavy), default=0.0),
            "device_memory_bytes": self.device.memory,
            # DVC's cache and the workspace each hold a copy if links are not possible.
            "disk_bytes": 2 * written,
            "remote_bytes": written,
            "assumed": self.assumed,
            "sizes": self.sizes,
            "rates": [vars(rate) for rate in self.rates],
        }


def forecast(
    workspace: Path,
    params: Params,
    device: Device,
    gpus: int,
    text: str | None = None,
    most: int = 1,
) -> Forecast:
    """Return the forecast of a run with these parameters, which need not be the workspace's.

    Args:
        workspace: the folder of DVC's workspace.
        params: the parameters of the run.
        device: what each stage would run on.
        gpus: the number of such devices.
        text: the text of `params.yaml` for the plan; by default the file's.
        most: the most stages that may run on one device at once.
    """
    from lori_core import cost

    plan = graph.plan(workspace, params=text)
    cached = graph.cached(workspace, plan, params=text)
    splits = cost.count_splits(params, workspace / "data")
    model = cost.Model(params, splits, device)
    lines = []
    for stage in plan.stages:
        why = plan.stale.get(stage.name)
        state = "keep" if why is None else "cached" if stage.name in cached else "run"
        estimate = model.stage(stage.name) if state == "run" else None
        lines.append(Line(stage.name, state, why or [], estimate, measured(workspace, stage.name)))
    seconds = {line.stage: line.estimate.seconds for line in lines if line.estimate}
    working = [stage for stage in graph.urgent_first(plan) if stage.name in seconds]
    memory = {
        line.stage: line.estimate.memory for line in lines if line.estimate and device.kind == "gpu"
    }
    single = {stage.name for stage in working if stage.gpus == 1}
    shares = sharing.shares({n: memory[n] for n in memory if n in single}, device.memory, most)
    parts = {name: share.parts for name, share in shares.items()}
    begin = cost.LOAD_SECONDS + model.weights / cost.DISK
    schedule = simulate(working, seconds, gpus, parts, begin)
    sizes: dict[str, list[str]] = {}
    for task, each in splits.items():
        for split, size in each.items():
            sizes.setdefault(size.basis, []).append(f"{task}/{split}")
    return Forecast(lines, schedule, gpus, device, parts, sizes, model.rates)


def name_here() -> str:
    """Return the name of this machine's GPU in `lori_core.cost.DEVICES`.

    Raises:
        InputError: the GPU is not known.
    """
    from flows.doctor.checks import nvidia_smi
    from lori_core.core.errors import InputError
    from lori_core.cost import DEVICES

    seen = (nvidia_smi() or ["none"])[0].lower().replace(" ", "-")
    for name in DEVICES:
        if all(part in seen for part in name.split("-")):
            return name
    raise InputError(
        f"--gpu: this machine's {seen.split(',')[0]!r} is not known; name a similar device "
        f"(allowed: {', '.join(sorted(DEVICES))}, cpu)"
    )


def measured(workspace: Path, stage: str) -> float | None:
    """Return the seconds that a stage's command took the last time it ended here, or None."""
    newest = None
    for path in sorted((workspace / ROWS_FOLDER / stage).glob("*.jsonl")):
        rows, _ = read_from(path, 0, limit=-1)
        if rows and rows[-1]["type"] in ("end", "tags"):
            ends = [row["time"] for row in rows if row["type"] == "end"]
            # If the clock was set back in between, the time is not known.
            newest = max(0.0, float(ends[-1]) - float(rows[0]["time"])) if ends else newest
    return newest


def show(forecast: Forecast) -> Iterator[str]:
    """Yield the forecast as lines of text."""
    yield f"{'':6} {'stage':28} {'time':>8} {'memory':>9}  why"
    for row in rows(forecast):
        cost = f"{row['time']:>8} {row['memory']:>9}" if row["time"] else ""
        yield f"{row['state']:6} {row['stage']:28} {cost:18}  {row['why']}"
    if forecast.running:
        yield ""
        yield from summary(forecast)


def rows(forecast: Forecast) -> Iterator[dict[str, str]]:
    """Yield each stage's `state`, `stage`, `time`, `memory` and `why` as text."""
    for line in forecast.lines:
        estimate = line.estimate
        took = f" (took {_time(line.measured)})" if line.measured is not None else ""
        why = in_short(line.why)
        if line.state == "cached":
            why = f"in the run cache ({why})"
        yield {
            "state": line.state,
            "stage": line.stage,
            "time": "" if estimate is None else _time(estimate.seconds),
            "memory": "" if estimate is None else _size(estimate.memory),
            "why": f"{why}{took}",
        }


def summary(forecast: Forecast) -> Iterator[str]:
    """Yield lines about the whole run: time, memory, disk and the critical path."""
    total = forecast.totals()
    yield (
        f"{total['to_run']} of {total['stages']} stages run, {total['cached']} are in the cache; "
        f"on {forecast.gpus} x {forecast.device.name}: {_time(total['wall_seconds'])}, "
        f"{total['gpu_hours']:.2f} device-hours, {total['flops']:.2e} operations"
    )
    if total["at_once"] > 1:
        yield (
            f"up to {total['at_once']} stages at once, several on a GPU if their memory fits "
            "(execution.share_gpus)"
        )
    room = total["peak_memory_bytes"] / total["device_memory_bytes"]
    warning = "" if room < 0.95 else "  TOO MUCH: lower training.batch_size, or use checkpointing"
    yield (
        f"memory: {_size(total['peak_memory_bytes'])} of "
        f"{_size(total['device_memory_bytes'])}{warning}"
    )
    yield f"disk: {_size(total['disk_bytes'])}; to a remote: {_size(total['remote_bytes'])}"
    yield f"critical path: {' > '.join(total['critical_path'])}"
    yield from _speeds(forecast.rates)
    if forecast.assumed:
        yield "data not pulled with these settings: tokens are assumed, and numbers of examples are"
        for basis, text in BASES.items():
            if splits := forecast.sizes.get(basis):
                yield f"  {text}: {', '.join(_by_task(splits))}"


def _speeds(rates: tuple[Rate, ...]) -> Iterator[str]:
    """Yield what the times are computed with: measured rates with their source, then guesses."""
    for title, measured in (("speeds measured", True), ("speeds guessed", False)):
        for rate in rates:
            if rate.measured == measured:
                basis = "" if measured or rate.source.startswith("not") else "as "
                share = f"{100 * rate.share:.0f} % of the device's peak"
                yield f"{title}: {rate.work} at {share} ({basis}{rate.source})"
    if rates:
        from lori_core.cost import DISK

        yield f"speeds guessed: weights read from the disk at {DISK / 1e9:.0f} GB/s"


def _by_task(splits: list[str]) -> list[str]:
    """Return the splits' names, and only the task's name if all its splits are listed."""
    tasks = [name.partition("/")[0] for name in splits]
    whole = {task for task in tasks if tasks.count(task) == len(SPLITS)}
    named = (t if t in whole else name for t, name in zip(tasks, splits, strict=True))
    return list(dict.fromkeys(named))


def as_json(forecast: Forecast) -> str:
    """Return the forecast as JSON."""
    stages = {
        line.stage: {
            "state": line.state,
            "why": line.why,
            "begins": forecast.schedule.begins.get(line.stage),
            "ends": forecast.schedule.ends.get(line.stage),
            "gpu_share": forecast.parts.get(line.stage, sharing.CARD) / sharing.CARD,
            "measured_seconds": line.measured,
            **({} if line.estimate is None else vars(line.estimate)),
        }
        for line in forecast.lines
    }
    return json.dumps({"stages": stages, "totals": forecast.totals()}, indent=2)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
