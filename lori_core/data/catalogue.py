"""Ready-made sources: a plain name in `tasks.<task>.source` stands for one of these.

Hub sets carry no commit here: the first pull writes the commit it got into `data/manifest.json`,
and later pulls take that one. Sets under `$LORI_DATASETS` are files in the form their authors
published them in.
"""

from __future__ import annotations

from lori_core.config import SourceSection
from lori_core.errors import ConfigError, unknown

_INSTRUCTION = {"prompt": "{instruction}\n\n{input}", "target": "{output}"}
_ANSWERED = {"prompt": "{instruction}", "target": "{output}", "answer": "{answer}"}
_TRAIN_TEST = {"train": "train", "test": "test"}


def _bundled(name: str, licence: str = "Apache-2.0") -> SourceSection:
    return SourceSection(kind="bundled", name=name, license=licence)


def _nlu(folder: str) -> SourceSection:
    return SourceSection(
        kind="local",
        path=f"$LORI_DATASETS/nlu/{folder}",
        files={"train": "train.json", "test": "test.json"},
        fields=_ANSWERED,
        scorer="choice",
        subset=folder,
        license="ODC-By",
    )


CATALOGUE: dict[str, SourceSection] = {
    # Made by this project, or inside a package.
    "bundled-nlu": _bundled("nlu"),
    "bundled-math": _bundled("math"),
    "bundled-code": _bundled("code"),
    "bundled-safety": _bundled("safety"),
    "humaneval": _bundled("humaneval", "MIT"),
    # The paper's sets, on the hub.
    "commonsense-170k": SourceSection(
        kind="hub",
        name="zwhe99/commonsense_170k",
        files={"train": "train"},
        fields=_ANSWERED,
        scorer="choice",
        subset="commonsense",
    ),
    "gsm8k": SourceSection(
        kind="hub",
        name="openai/gsm8k",
        config="main",
        files={"train": "train", "test": "test"},
        format="gsm8k",
        scorer="number",
        subset="gsm8k",
        license="MIT",
    ),
    "codealpaca-20k": SourceSection(
        kind="hub",
        name="sahil2801/CodeAlpaca-20k",
        files={"train": "train"},
        fields=_INSTRUCTION,
        subset="codealpaca",
        license="CC-BY-4.0",
    ),
    "openai-humaneval": SourceSection(
        kind="hub",
        name="openai/openai_humaneval",
        files={"test": "test"},
        format="humaneval",
        scorer="code",
        subset="humaneval",
        license="MIT",
    ),
    "hex-phi": SourceSection(
        kind="hub",
        name="LLM-Tuning-Safety/HEx-PHI",
        files={"test": "train"},
        fields={"prompt": "{prompt}", "target": ""},
        scorer="refusal",
        subset="harmful",
        answer="refuse",
        license="gated",
    ),
    # The same and similar sets as files.
    "gsm8k-files": SourceSection(
        kind="local",
        path="$LORI_DATASETS/gsm8k",
        files={"train": "train.jsonl", "test": "test.jsonl"},
        format="gsm8k",
        scorer="number",
        subset="gsm8k",
        license="MIT",
    ),
    "arc-challenge-files": _nlu("arc-challenge"),
    "arc-easy-files": _nlu("arc-easy"),
    "boolq-files": _nlu("boolq"),
    "openbookqa-files": _nlu("openbookqa"),
    "codealpaca-files": SourceSection(
        kind="local",
        path="$LORI_DATASETS/codealpaca",
        files={"train": "code_alpaca_2k.json"},
        fields=_INSTRUCTION,
        subset="codealpaca",
        license="CC-BY-NC-4.0",
    ),
    "saferpaca-safety-files": SourceSection(
        kind="local",
        path="$LORI_DATASETS/safety",
        files={"train": "safety_only_data_Instructions.json"},
        fields={"prompt": "{instruction}", "target": "{output}"},
        scorer="refusal",
        subset="harmful",
        answer="refuse",
        license="CC-BY-NC-4.0",
    ),
    "saferpaca-files": SourceSection(
        kind="local",
        path="$LORI_DATASETS/safety",
        files={"train": "saferpaca_Instructions_2000.json"},
        fields=_INSTRUCTION,
        subset="saferpaca",
        license="CC-BY-NC-4.0",
    ),
    "malicious-instructions-files": SourceSection(
        kind="local",
        path="$LORI_DATASETS/safety",
        files={"test": "I-MaliciousInstructions.json"},
        format="instructions",
        scorer="refusal",
        subset="harmful",
        answer="refuse",
        license="CC-BY-NC-4.0",
    ),
    "harmless-instructions-files": SourceSection(
        kind="local",
        path="$LORI_DATASETS/safety",
        files={"test": "I-Alpaca.json"},
        format="instructions",
        scorer="refusal",
        subset="ordinary",
        answer="comply",
        license="CC-BY-NC-4.0",
    ),
}


def resolve(source: str | SourceSection, where: str) -> SourceSection:
    """Return a source's definition; `where` (a key of params.yaml) stands in the error."""
    if isinstance(source, SourceSection):
        return source
    if source not in CATALOGUE:
        raise ConfigError(f"{where}: {unknown('source', source, CATALOGUE)}")
    return CATALOGUE[source]
