"""Whether two evaluations may be compared: by their settings, and by the code that scored them.

Both are tags of a registered version, because the same artifact may be evaluated again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flows.lineage.measured import rows_of
from flows.tracking import registry as reg
from flows.tracking.logged_models import PATH
from flows.tracking.registry import Version
from flows.versioning.dvc import code_files
from flows.versioning.dvc.lock_file import StageEntry
from flows.versioning.objects import md5_of_bytes
from flows.versioning.snapshot import LOCK, Snapshot, leaves
from lori_core.config import EvaluationSection
from lori_core.core.errors import DataError
from lori_core.core.files.atomic import canonical_json
from lori_core.core.files.json_input import loads

SETUPS = "evaluation.setups"
#: The code that turns outputs into verdicts: this folder, and scorers of the user's extensions.
SCORING = "lori_core/evaluation/scoring"
#: Files of `SCORING` on which no verdict in the default set-up depends.
NEUTRAL = ("__init__", "judge_rubrics", "refusal_judge", "setups", "verdict_shares")


def evaluation_tags(stage: StageEntry, snapshot: Snapshot) -> dict[str, str]:
    """Return the tags of an evaluation: its verdicts and their hash, settings and scoring code."""
    rows = rows_of(stage)
    if rows is None:
        return {}
    return {
        reg.EVALUATION: f"{rows}={stage.outs[rows].md5}",
        reg.SETTINGS: canonical_json(stage.params.get("evaluation") or {}),
        reg.SCORING_CODE: canonical_json(scoring_code(stage, snapshot)),
    }


def scoring_code(stage: StageEntry, snapshot: Snapshot) -> dict[str, str]:
    """Return the MD5 of each recorded file or folder of scoring code; empty if none is recorded.

    In a workspace outside of the repository, the recorded file of digests has to be in the
    snapshot.
    """
    recorded = {path: entry.md5 for path, entry in stage.deps.items()}
    digests = code_files.path_of(stage.name.partition("@")[0])
    content = snapshot.read(digests) if digests in recorded else None
    if content is not None and md5_of_bytes(content) == recorded[digests]:
        recorded |= loads(content.decode())
    neutral = {f"{SCORING}/{name}.py" for name in NEUTRAL}
    return {path: md5 for path, md5 in recorded.items() if _scores(path) and path not in neutral}


def _scores(path: str) -> bool:
    extension = path.endswith(".py") and not path.startswith("lori_core/")
    return path == SCORING or path.startswith(f"{SCORING}/") or extension


def difference(
    first: str, ours: Mapping[str, str], second: str, theirs: Mapping[str, str]
) -> str | None:
    """Return how an evaluation differs from the first one; None if they may be compared.

    What is not recorded on both sides is not compared.

    Args:
        first: the name of the first model.
        ours: its tags, from `evaluation_tags`.
        second: the name of the other model.
        theirs: its tags.
    """
    if reg.SETTINGS in ours and reg.SETTINGS in theirs:
        sides = ({"evaluation": loads(tags[reg.SETTINGS])} for tags in (ours, theirs))
        for setting, here, there in settings_that_differ(*sides):
            return f"{second}: was evaluated with {setting} {there!r}, {first} with {here!r}"
    code = [loads(tags.get(reg.SCORING_CODE, "{}")) for tags in (ours, theirs)]
    for path in sorted(code[0].keys() & code[1].keys()):
        if code[0][path] != code[1][path]:
            return f"{second}: was scored by other code than {first} ({path} differs)"
    return None


def settings_that_differ(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield name and both values of each setting of `evaluation` that differs.

    Args:
        first: parameters as recorded; a setting that was left out has its default.
        second: the parameters to compare with.
    """
    default = dict(leaves({"evaluation": EvaluationSection().model_dump(mode="json")}))
    ours, theirs = (
        dict(leaves({"evaluation": s.get("evaluation") or {}})) for s in (first, second)
    )
    for name in sorted({*ours, *theirs}):
        # Other set-ups do not change the verdicts in the default one, which are compared.
        if name == SETUPS or name.startswith(f"{SETUPS}."):
            continue
        here, there = (side.get(name, default.get(name)) for side in (ours, theirs))
        if here != there:
            yield name, here, there


def check_alike(first: StageEntry, second: StageEntry) -> None:
    """Refuse two evaluations of one snapshot with different settings.

    Raises:
        DataError: the message names the first setting that differs.
    """
    for name, ours, theirs in settings_that_differ(first.params, second.params):
        raise DataError(
            f"{LOCK}: {name} was {ours!r} in stage {first.name}, {theirs!r} in {second.name}: "
            "they cannot be compared; lori run evaluates both with the same settings"
        )


def check_champion(champion: Version, tags: Mapping[str, str]) -> None:
    """Refuse a champion whose evaluation had other settings or scoring code than the candidate's.

    Args:
        champion: the champion; what was not recorded when it was registered is not compared.
        tags: the candidate's tags, from `flows.serving.packaging.tags_of`.

    Raises:
        DataError: the message names the first difference, and what to do.
    """
    found = difference(tags[PATH], tags, str(champion), champion.tags)
    if found is not None:
        path, name = champion.tags[PATH], champion.name
        raise DataError(
            f"{found}: they cannot be compared; put it back, or evaluate the champion likewise: in "
            f"a clone, lori restore models:/{name}/{champion.number}, lori run, lori register "
            f"{path} --as {name}"
        )
