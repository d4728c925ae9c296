"""Names that become paths, and paths that lead elsewhere or cannot be."""

from __future__ import annotations

from pathlib import Path

from bad_inputs.cases import Case, Content, each, fifo, folder, link
from bad_inputs.commands import Commands
from bad_inputs.yaml_texts import GOOD

NAMES = {
    "up": "../../../../x",
    "up-inside": "math/../../../x",
    "absolute": "/x/y",
    "dots": "..",
    "dot": ".",
    "slash": "a/b",
    "backslash": "a\\b",
    "empty": "",
    "space": " ",
    "spaces": "a b",
    "long": "x" * 300,
    "very-long": "x" * 5000,
    "line": "a\nb",
    "bell": "a\x07b",
    "bad-utf-8": "a\udcffb",
    "at": "a@b",
    "colon": "a:b",
    "star": "*",
    "dash": "-x",
    "tilde": "~",
    "other-letters": "mäth",
    "null-word": "null",
}
#: Those that the shell can give as an argument of their own.
GIVEN = {name: text for name, text in NAMES.items() if name != "dash"}
STAGES = (
    [Case(f"stage-{name}", ["stage", text]) for name, text in GIVEN.items()]
    + [Case(f"stage-item-{name}", ["stage", "train", text]) for name, text in GIVEN.items()]
    + [
        Case("stage-without-item", ["stage", "train"]),
        Case("stage-with-item", ["stage", "report", "math"]),
        Case("stage-unknown-task", ["stage", "train", "maths"], says=["maths", "math"]),
        Case("stage-of-a-merge", ["stage", "merge", "math"], says=["math", "concat"]),
    ]
)
POINTS = [Case(f"point-{name}", ["point", text]) for name, text in GIVEN.items()]
EXPERIMENTS = [
    Case(f"experiment-{name}", ["experiment", text, "--plan"]) for name, text in GIVEN.items()
] + [
    Case(f"power-{name}", ["experiment", "--plan-power", *arguments], says=says)
    for name, arguments, says in (
        ("margin-0", ["--margin", "0"], ["--margin", "'0'"]),
        ("margin-nan", ["--margin", "nan"], ["--margin", "'nan'"]),
        ("power-1", ["--power", "1"], ["--power", "'1'"]),
        ("budget", ["--budget", "-1"], ["--budget", "'-1'"]),
        ("experiment", ["granulrity"], ["granulrity", "granularity"]),
        ("record", ["--record", "nowhere"], ["nowhere", "no experiment has run"]),
    )
]
EXPERIMENTS.append(
    Case("power-options", ["experiment", "all", "--margin", "2"], says=["--margin", "--plan-power"])
)


def _renamed(text: str) -> Content:
    """Return the good file with the task `code` under another name."""
    quoted = "'" + text.replace("'", "''") + "'" if text.isprintable() else repr(text)
    return GOOD.replace("  code:\n", f"  {quoted}:\n").encode(errors="surrogateescape")


TASKS = [
    Case(f"task-{name}", ["plan"], {"params.yaml": _renamed(text)}, ["params.yaml"])
    for name, text in NAMES.items()
    if name != "null-word"
] + [
    Case(f"merge-{name}", ["plan", "--set", f"merge={{{text}: {{method: concat}}}}"])
    for name, text in {"up": "../x", "dot": "a.b", "long": "x" * 300, "merged": "merged"}.items()
] + [
    Case(f"{key}-{name}", ["plan", "--set", f"{key}={text!r}"], says=[key])
    for key in ("gate.model", "tasks.math.projection_key", "continual.safety_task")
    for name, text in {
        "up": "../../x", "absolute": "/x", "slash": "a/b", "long": "x" * 300, "empty": "",
    }.items()
]  # fmt: skip

REFERENCES = [
    Case(f"set-{name}", ["plan", "--set", text], says=[*says])
    for name, text, says in (
        ("rule-unknown", "gate.rules.refusl.at_least=0.5", ["gate.rules", "refusl", "refusal"]),
        ("rule-of-no-task", "gate.rules={score.maths: {at_least: 0.5}}", ["score.maths"]),
        ("rule-excess-of-no-task", "gate.rules={excess.mth: {at_most: 0.5}}", ["excess.mth"]),
        ("rule-without-end", "gate.rules={refusal: {}}", ["gate.rules.refusal"]),
        ("rule-above-one", "gate.rules={refusal: {at_least: 30}}", ["gate.rules.refusal"]),
        ("rule-impossible", "gate.rules={refusal: {at_least: 0.9, at_most: 0.1}}", ["refusal"]),
        ("rule-negative-size", "gate.rules={size_mb: {at_most: -1}}", ["size_mb"]),
        ("rule-nan", "gate.rules={refusal: {at_least: .nan}}", ["gate.rules"]),
        ("rule-text", "gate.rules={refusal: {at_least: '0.3'}}", ["gate.rules"]),
        ("rule-true", "gate.rules={refusal: {at_least: true}}", ["gate.rules"]),
        ("rules-list", "gate.rules=[refusal]", ["gate.rules"]),
        ("margin-of-no-task", "gate.margins={maths: 0.1}", ["gate.margins", "maths"]),
        ("candidate-unknown", "gate.candidate=artifacts/merged/conct", ["gate.candidate"]),
        ("candidate-elsewhere", "gate.candidate=../other", ["gate.candidate"]),
        ("merge-of-no-task", "merge.concat.adapters=[maths]", ["merge.concat.adapters"]),
        ("merge-twice-one-task", "merge.concat.adapters=[math, math]", ["merge.concat.adapters"]),
        ("merge-method", "merge.concat.method=conct", ["merge.concat.method"]),
        ("merge-density-unused", "merge.concat.density=0.5", ["density"]),
        ("merge-density-missing", "merge.concat.method=ties", ["density"]),
        ("merge-threshold-unused", "merge.concat.threshold=0.5", ["threshold"]),
        ("merge-safemerge-of-all", "merge.concat.method=safemerge", ["merge.concat.adapters"]),
        (
            "merge-search-gradient",
            "merge.concat={method: ties, density: 0.7, search: {optimizer: gradient}}",
            ["merge.concat", "ties has no gradient"],
        ),
        ("merge-search-layer", "merge.concat={method: linear, search: {by: layer}}", ["search.by"]),
        ("merge-search-task", "merge.concat.search={task_weights: {maths: 2}}", ["maths", "math"]),
        ("merge-search-key", "merge.concat.search={step: 2}", ["step", "steps"]),
        ("merge-on-safety-of-training", "merge.concat.method=on_safety", ["stage: continual"]),
        (
            "merge-continual-of-safety",
            "merge.concat={method: on_safety, stage: continual, adapters: [safety]}",
            ["safety"],
        ),
        ("merge-no-weights", "merge.concat.weights=[]", ["weights"]),
        ("merge-few-weights", "merge.concat.weights=[1, 1]", ["weights"]),
        ("safety-task-unknown", "continual.safety_task=safty", ["continual.safety_task"]),
        ("safety-task-none", "continual.safety_task=null", ["continual.safety_task"]),
        ("continual-method", "continual.method=lori-t", ["continual.method", "lori-t"]),
        (
            "continual-mask",
            "continual.method=lori-d-mix",
            ["continual.method", "trains without a mask"],
        ),
        ("continual-unknown", "continual.tasks=[maths]", ["continual.tasks"]),
        ("continual-safety", "continual.tasks=[safety]", ["continual.tasks"]),
        ("continual-twice", "continual.tasks=[math, math]", ["continual.tasks"]),
        ("experiments-tasks", "experiments.tasks=[maths]", ["experiments.tasks"]),
        ("experiments-scored", "experiments.scored=[maths]", ["experiments.scored"]),
        ("experiments-three", "experiments.three=[maths]", ["experiments.three"]),
        ("experiments-methods", "experiments.methods=[lra]", ["experiments.methods", "lra"]),
        ("experiments-merged", "experiments.merged_methods=[lra]", ["lra"]),
        ("experiments-merges", "experiments.merges=[tie]", ["tie"]),
        ("experiments-options", "experiments.options={lra: {}}", ["lra"]),
        ("experiments-option", "experiments.options={lora-plus: {x: 1}}", ["lora-plus"]),
        ("experiments-rates", "experiments.learning_rates={lra: [0.1]}", ["lra"]),
        ("experiments-no-scopes", "experiments.scopes=[]", ["experiments.scopes"]),
        ("method-unknown", "tasks.math.method=lri-s", ["tasks.math.method"]),
        ("method-option", "tasks.math.method={name: lora, r: 1}", ["tasks.math.method"]),
        ("source-unknown", "tasks.math.source=bundled-mth", ["tasks.math.source"]),
        ("source-empty", "tasks.math.source=''", ["tasks.math.source"]),
        ("sources-none", "tasks.math.source=[]", ["tasks.math.source"]),
        ("override-unknown", "tasks.math.training={epoch: 1}", ["tasks.math.training"]),
        ("setup-attack", "evaluation.setups={a: {attack: dan}}", ["setups.a.attack", "role-play"]),
        ("setup-name", "evaluation.setups={../a: {system: x}}", ["evaluation.setups", "../a"]),
        ("setup-default", "evaluation.setups={default: {system: x}}", ["default", "greedy"]),
        ("setup-same", "evaluation.setups={a: {}}", ["evaluation.setups.a", "default"]),
        ("setup-seed", "evaluation.setups={a: {seed: 1}}", ["evaluation.setups.a", "greedy"]),
        ("setup-key", "evaluation.setups={a: {temprature: 1.0}}", ["temprature", "temperature"]),
        ("setup-list", "evaluation.setups=[a]", ["evaluation.setups"]),
        ("gate-setup-unknown", "gate.setups=[sampled]", ["gate.setups", "sampled"]),
        ("judge-file", "evaluation.judge.url=file:///etc/passwd", ["evaluation.judge.url"]),
        ("judge-ftp", "evaluation.judge.url=ftp://host/x", ["evaluation.judge.url"]),
        ("judge-word", "evaluation.judge.url=localhost", ["evaluation.judge.url"]),
        ("judge-no-host", "evaluation.judge.url=http://", ["evaluation.judge.url"]),
        ("judge-port", "evaluation.judge.url='http://h:99999/v1'", ["evaluation.judge.url"]),
        ("judge-space", "evaluation.judge.url='http://a b/v1'", ["evaluation.judge.url"]),
        ("tracking-word", "tracking.uri=nowhere", ["tracking.uri"]),
        ("tracking-scheme", "tracking.uri=gopher://x", ["tracking.uri"]),
        ("ray-word", "execution.ray_address=nowhere", ["execution.ray_address"]),
        ("ray-http", "execution.ray_address=http://x", ["execution.ray_address"]),
    )
]

OUTPUTS: dict[str, Content] = {
    "a-file": "not ours\n",
    "a-link": link("../elsewhere"),
    "a-link-to-itself": lambda path: path.symlink_to(path.name),
    "a-pipe": fifo,
}
ADAPTERS = [
    Case(f"{command[0]}-{name}", [part.replace("PATH", text) for part in command])
    for command in (
        ["inspect", "PATH"],
        ["export", "PATH", "out", "--to", "peft"],
        ["merge", "PATH", "-o", "out"],
        ["interference", "PATH", "PATH"],
        ["evaluate", "PATH", "--tasks", "math", "--base", "random:llama"],
        ["compare", "PATH", "x"],
        ["register", "PATH"],
        ["card", "PATH"],
        ["why", "PATH"],
        ["diff", "PATH", "x"],
        ["restore", "PATH", "out"],
        ["gate", "PATH"],
        ["serve-dir", "PATH"],
    )
    for name, text in {
        "nothing": "nothing",
        "long": "x" * 300,
        "very-long": "x/" * 3000,
        "empty": "",
        "bell": "a\x07",
        "bad-utf-8": "a\udcff",
        "below-a-file": "params.yaml/x",
        "a-file": "dvc.yaml",
    }.items()
]
PLACED = [
    Case(f"{command}-at-{name}", [command, *more], {"x": content})
    for command, more in (
        ("inspect", ["x"]),
        ("merge", ["x", "-o", "out"]),
        ("why", ["x"]),
        ("serve-dir", ["x"]),
    )
    for name, content in OUTPUTS.items()
]
PUSH = [
    Case(f"push-{name}", ["push", "artifacts/math/adapter", text, "--dry-run", "out"])
    for name, text in {
        "up": "../x",
        "word": "x",
        "three": "a/b/c",
        "empty": "",
        "bell": "a/\x07",
    }.items()
]
EMPTY_FOLDER = [Case("inspect-an-empty-folder", ["inspect", "x"], {"x": folder})]


@each(STAGES + POINTS + EXPERIMENTS)
def test_names_of_stages(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)


@each(TASKS + REFERENCES)
def test_names_in_params(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)


@each(ADAPTERS + PLACED + PUSH + EMPTY_FOLDER)
def test_paths(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)
