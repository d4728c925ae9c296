"""The architecture as a test: each module imports only from rows above its own."""

import ast
from pathlib import Path

import pytest
from imports import names_in

ROOT = Path(__file__).parent.parent
ROWS = [
    ["allotment", "errors", "stopping"],
    ["cache", "input_files", "limited", "redaction"],
    ["faults", "name_patterns", "json_input", "yaml_input", "registry"],
    ["files", "finite", "registries"],
    [
        "process",
        "progress",
        "source_code",
        "stage_dependencies",
        "tracking",
        "validation",
        "importances",
        "mask_choices",
        "merge_methods",
        "precision",
        "phases",
        "recipe",
        "extensions",
    ],
    ["forked", "parallel"],
    ["config", "origin", "tensor_file", "mask_codec"],
    ["projection", "base_files", "linear_maps", "text_part", "weight_names"],
    ["mask", "base_identity", "output_folder", "fused_experts", "model_settings"],
    ["mask_file", "structure", "sparse", "peft_names", "models"],
    ["adapter", "base_tensors", "peft_config"],
    ["adapter_file", "attaching", "baking", "peft_modules"],
    ["peft_file", "base_choice", "continual"],
    ["plain_attention", "tuned"],
    ["training_method"],
    ["peft_training"],
    ["lori_methods", "peft_methods"],
    ["methods"],
    ["data"],
    ["packed", "fused", "pointwise", "memory", "params_file"],
    ["loss", "step_report"],
    ["training"],
    ["session"],
    ["calibration", "tuning"],
    ["merging", "interference", "inspection", "cost"],
    ["evaluation"],
    ["report"],
    ["gate_rules"],
    ["gate"],
    ["stages"],
    ["experiments"],
    ["cli"],
]
#: What runs it, likewise.
FLOWS = [
    ["private"],
    ["access", "environment", "extras", "lock"],
    ["versioning"],
    ["tracking"],
    ["machine", "lineage"],
    ["serving"],
    ["server"],
    ["doctor"],
    ["execution"],
    ["planning"],
    ["parameters", "here"],
    ["pipeline"],
    ["run"],
]
PACKAGES = {"lori_core": ROWS, "flows": FLOWS}
ROW = {
    (package, name): number
    for package, rows in PACKAGES.items()
    for number, names in enumerate(rows)
    for name in names
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the dotted names a file imports, inside functions too, but for type checkers alone."""
    return set(names_in(ast.parse(path.read_text(encoding="utf-8")).body))


def part_of(path: Path) -> tuple[str, str]:
    """Return a file's package, and the module or folder in it."""
    package, part, *_ = path.relative_to(ROOT).parts
    return package, part.removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package, own = part_of(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != package or len(parts) < 2 or parts[1] in (own, "__version__"):
            continue
        assert ROW[package, parts[1]] < ROW[package, own], f"{path.name} imports {name}"


METHOD = [path for path in FILES if part_of(path)[0] == "lori_core"]


@pytest.mark.parametrize("path", METHOD, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_method_imports_no_engine(path: Path) -> None:
    engines = {name.split(".")[0] for name in imports(path)} & {"prefect", "dvc", "mlflow", "flows"}
    assert engines <= ({"flows"} if path.parent.name == "cli" else set())


def test_nothing_shadows_the_mlflow_package() -> None:
    present = {path.name for path in (ROOT / "mlflow").rglob("*")}
    assert not present & {"__init__.py", "conftest.py", "mlflow.py"}
    assert not {name for name in present if name.startswith("test_")}
