"""Check keys of `params.yaml` against others: names of other sections, keys without effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lori_core.config.evaluation import DEFAULT_SETUP, SetupSection
from lori_core.config.operations import Bound
from lori_core.core.errors import unknown
from lori_core.registries.gate_rule import GATE_RULES, RULES_OF_SETUPS

if TYPE_CHECKING:
    from lori_core.config.params import Params
    from lori_core.config.tasks import SourceSection

#: Keys of records, which are converted to examples.
_OF_RECORDS = (
    "files",
    "split",
    "filter",
    "fields",
    "messages",
    "format",
    "scorer",
    "subset",
    "answer",
    "limit",
    "license",
)
#: The keys that have an effect, by `kind`. A made set brings its scorer, answers and licence.
SOURCE_KEYS = {
    "bundled": ("name", "limit"),
    "extension": ("name", "limit"),
    "local": ("path", *_OF_RECORDS),
    "hub": ("name", "config", "revision", "columns", *_OF_RECORDS),
}
#: Keys of `fields` that give each example what a key of the source gives all of them.
_SAME = {"scorer": "scorer", "kind": "subset", "answer": "answer"}
_TASKS_OF_EXPERIMENTS = ("tasks", "compared_tasks", "ablation_tasks", "three", "scored")


def check(params: Params) -> None:
    """Check the names of tasks, artifacts and rules in all sections.

    Raises:
        ValueError: a name is unknown; the message is one line that begins with the key.
    """
    check_tasks(params, "continual.tasks", params.continual.tasks)
    for name, merge in params.merge.items():
        check_tasks(params, f"merge.{name}.adapters", merge.adapters)
        if merge.stage == "continual":
            _check_continual_merge(params, name)
        if merge.search is not None:
            _check_search(params, name)
    _check_safety_task(params)
    for field in _TASKS_OF_EXPERIMENTS:
        names = getattr(params.experiments, field) or ()
        check_tasks(params, f"experiments.{field}", names)
    _check_setups(params)
    _check_gate(params)


def check_tasks(params: Params, where: str, names: Sequence[str]) -> None:
    """Check that names of tasks exist and are unique.

    Raises:
        ValueError: a task is unknown or named twice; the message begins with `where`.
    """
    for name in names:
        if name not in params.tasks:
            raise ValueError(f"{where}: {unknown('task', name, params.tasks)}")
    if len(set(names)) != len(names):
        raise ValueError(f"{where}: a task is named twice: {', '.join(names)}")


def _check_continual_merge(params: Params, name: str) -> None:
    if not params.continual.tasks:
        raise ValueError(
            f"merge.{name}.stage: continual.tasks is empty, so there are no continual adapters to "
            "merge"
        )
    for task in params.merge[name].adapters:
        if task not in params.continual.tasks:
            raise ValueError(
                f"merge.{name}.adapters: {task!r} has no continual adapter; allowed are the tasks "
                f"of continual.tasks: {', '.join(params.continual.tasks)}"
            )


def _check_search(params: Params, name: str) -> None:
    search = params.merge[name].search
    known = params.searched_tasks(name)
    for task in () if search is None else search.task_weights:
        if task not in known:
            raise ValueError(
                f"merge.{name}.search.task_weights: {unknown('task of this merge', task, known)}"
            )
    if search is not None and all(search.task_weights.get(task, 1.0) == 0 for task in known):
        raise ValueError(f"merge.{name}.search.task_weights: at least one task must count")


def _check_safety_task(params: Params) -> None:
    safety = params.continual.safety_task
    if safety is not None:
        check_tasks(params, "continual.safety_task", [safety])
    if not params.continual.tasks:
        return
    if safety is None:
        raise ValueError("continual.safety_task: needed when continual.tasks is not empty")
    if safety in params.continual.tasks:
        raise ValueError(f"continual.tasks: {safety!r} is the safety task itself")


def _check_setups(params: Params) -> None:
    """Refuse two set-ups with the same settings: the spread over them would be too small."""
    plain = SetupSection().resolved(params.prompt.system, params.evaluation.seed)
    seen = {str(plain): DEFAULT_SETUP}
    for name in params.evaluation.setups:
        settings = str(params.setup_settings(name))
        if settings in seen:
            raise ValueError(
                f"evaluation.setups.{name}: has the same settings as the set-up {seen[settings]}; "
                "change temperature, seed, system or attack, or remove it"
            )
        seen[settings] = name


def _check_gate_setups(params: Params) -> None:
    gate, known = params.gate, params.evaluation.setups
    for name in gate.setups:
        if name not in known:
            raise ValueError(f"gate.setups: {unknown('set-up', name, known)}")
    if gate.setups and not set(RULES_OF_SETUPS) & set(gate.rules):
        raise ValueError(
            f"gate.setups: has no effect without a rule {' or '.join(RULES_OF_SETUPS)} in "
            "gate.rules; add a rule, or remove the set-ups"
        )


def _check_gate(params: Params) -> None:
    _check_gate_setups(params)
    gate = params.gate
    for task in gate.margins:
        check_tasks(params, "gate.margins", [task])
    known = {name for name, *_ in _rules(params)}
    for name in gate.rules:
        if name not in known and name in GATE_RULES and "before" in GATE_RULES[name].needs:
            raise ValueError(
                f"gate.rules.{name}: is measured against the safety task's adapter alone; name "
                "that task in continual.safety_task, or remove the rule"
            )
        if name not in known:
            raise ValueError(f"gate.rules: {unknown('rule', name, known)}")
    for name, least, most in _rules(params):
        if name in gate.rules:
            _check_bound(f"gate.rules.{name}", gate.rules[name], least, most)
    if gate.candidate is not None:
        artifacts = set(_artifacts(params))
        if gate.candidate.removeprefix("./").rstrip("/") not in artifacts:
            raise ValueError(f"gate.candidate: {unknown('artifact', gate.candidate, artifacts)}")


def _rules(params: Params) -> Iterator[tuple[str, float, float]]:
    """Yield (name, smallest value, largest value) of each possible rule of the gate."""
    for name, rule in GATE_RULES.items():
        if "before" in rule.needs and params.continual.safety_task is None:
            continue
        for full in (f"{name}.{task}" for task in params.tasks) if rule.per_task else (name,):
            yield full, rule.least, rule.most


def _check_bound(where: str, bound: Bound, least: float, most: float) -> None:
    for field in ("at_least", "at_most"):
        value = getattr(bound, field)
        if value is not None and not least <= value <= most:
            raise ValueError(f"{where}.{field}: {value:g}; it is between {least:g} and {most:g}")
    if None not in (bound.at_least, bound.at_most) and bound.at_least > bound.at_most:  # type: ignore[operator]
        raise ValueError(
            f"{where}: at_least {bound.at_least:g} and at_most {bound.at_most:g} leave nothing "
            "between them; no model would pass"
        )


def _artifacts(params: Params) -> Iterator[str]:
    """Yield the names of adapters that the gate can judge, by path and by stage."""
    for task in params.tasks:
        yield from (f"artifacts/{task}/adapter", f"train@{task}")
        yield from (f"artifacts/{task}/calibrated", f"calibrate@{task}")
    for task in params.continual.tasks:
        yield from (f"artifacts/continual/{task}/adapter", f"continual@{task}")
    for merge in params.merge:
        yield from (f"artifacts/merged/{merge}", f"merge@{merge}")


def check_source(source: SourceSection, where: str) -> None:
    """Refuse keys of a source that would have no effect.

    Args:
        source: a source that the user defined.
        where: the source's key, for messages.

    Raises:
        ValueError: names the key.
    """
    for key in type(source).model_fields:
        if key != "kind" and key not in SOURCE_KEYS[source.kind] and _is_set(source, key):
            *others, last = (kind for kind, keys in SOURCE_KEYS.items() if key in keys)
            kinds = f"{', '.join(others)} and {last}" if others else last
            raise ValueError(
                f"{where}.{key}: only {kinds} sources have this key, and it would "
                f"have no effect on this {source.kind} source; remove it"
            )
    for name, key in _SAME.items():
        if name in source.fields and _is_set(source, key):
            raise ValueError(
                f"{where}.{key}: fields.{name} already gives it for each example; remove one "
                "of the two"
            )
    if source.columns and source.config is not None:
        raise ValueError(
            f"{where}.config: has no effect beside columns, which read the repository's CSV files; "
            "remove one of the two"
        )
    if source.messages and source.answer is not None:
        raise ValueError(
            f"{where}.answer: conversations (messages) have no answer to score; remove one of the "
            "two"
        )


def _is_set(source: SourceSection, key: str) -> bool:
    """Return whether a key has another value than its default."""
    field = type(source).model_fields[key]
    return bool(getattr(source, key) != field.get_default(call_default_factory=True))
