"""JSON of adapters: PEFT's `adapter_config.json`, and `adapter.json`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs.commands import Commands
from bad_inputs.damage import (
    GONE,
    OURS,
    PEFT_CONFIG,
    Damaged,
    appended,
    each,
    edited,
    not_a_file,
    recoded,
    replaced,
    resealed,
)

DIGITS = "9" * 6000

#: Values that an option of PEFT's must not have.
WRONG: dict[str, list[Any]] = {
    "r": [0, -4, 2.5, True, "4", None, [4], GONE, 2**70],
    "lora_alpha": [0, -8, True, "8", None, [8], GONE, 1e308, 10**400],
    "target_modules": [5, True, None, "", [], [5], ["q_proj", None], {"q_proj": 1}, GONE, "x"],
    "rank_pattern": ["x", [4], 5, {"q_proj": True}, {"q_proj": "4"}, {"q_proj": 0}],
    "alpha_pattern": ["x", [4], True, {"q_proj": True}, {"q_proj": "4"}, {"q_proj": -1}],
    "bias": ["all", 5, None, True],
    "use_rslora": [1, "true", [], 0],
    "fan_in_fan_out": ["no", 1],
    "layers_to_transform": [-1, "0", 1.0, True, [True], [-1], {"0": 1}],
    "layers_pattern": [5, [5], True],
    "exclude_modules": [5, [5], ["q_proj"], "model.*"],
    "peft_type": ["IA3", 5, None, [], GONE, "lora"],
    "init_lora_weights": [5, [], "pissa"],
    "modules_to_save": [["lm_head"], "lm_head"],
    "base_model_name_or_path": [5, True, ["x"], {"name": "x"}],
    "revision": [5, ["main"]],
    "lora_dropout": ["0.1", -1, 2, True],
    "use_dora": [True, 1],
    "something_else": [1, {"a": 1}],
}
OPTIONS = [
    Damaged(
        f"{option}={'missing' if value is GONE else str(value)[:20]}-{number}",
        "peft",
        edited(PEFT_CONFIG, {option: value}),
        (PEFT_CONFIG, option) if option not in ("r", "lora_alpha") else (option[-5:],),
    )
    for option, values in WRONG.items()
    for number, value in enumerate(values)
]

#: Regular expressions that are none, or whose matching would not end.
PATTERNS = {
    "none": "(",
    "endless": "(.*)*x",
    "nested": r"((\w+\.?)*)*y",
    "choices": r"(\w|\w\w|.)+Z",
    "many": ".*.*.*.*.*.*.*.*.*.*.*.*x",
    "large": "a{99999999999}",
    "behind": "(?<=a+)b",
    "long": "a" * 20_000,
    "deep": "(" * 5_000 + ")" * 5_000,
}
EXPRESSIONS = [
    Damaged(
        f"{option}-{name}",
        "peft",
        edited(PEFT_CONFIG, {option: {pattern: 4} if option.endswith("k_pattern") else pattern}),
        (PEFT_CONFIG, option),
    )
    for option in ("rank_pattern", "target_modules", "layers_pattern")
    for name, pattern in PATTERNS.items()
    if option == "rank_pattern" or name in ("none", "large", "deep")
] + [
    Damaged(
        "alpha_pattern-endless",
        "peft",
        edited(PEFT_CONFIG, {"alpha_pattern": {"(.*)*x": 4}}),
        ("alpha_pattern", "it takes more than"),
    ),
    Damaged(
        "alpha_pattern-thousands",
        "peft",
        edited(PEFT_CONFIG, {"alpha_pattern": {f"x{n}.*y.*z": 4 for n in range(100_000)}}),
        ("alpha_pattern",),
    ),
]

TEXTS: dict[str, bytes | str] = {
    "list": "[1]",
    "number": "5",
    "null": "null",
    "text": '"x"',
    "empty": "",
    "blank": "  \n",
    "nothing but zeros": b"\0" * 50,
    "gzip": gzip.compress(b"{}"),
    "html": "<html>404 Not Found</html>",
    "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n",
    "latin": b'{"a": "\xe9"}',
    "raw surrogate": b'{"a": "\xed\xa0\x80"}',
    "nested lists": "[" * 100_000 + "]" * 100_000,
    "nested without end": "[" * 1_000_000,
    "nested objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "large": '{"a": [' + "1," * 9_000_000 + "1]}",
    "many lists": "[" + "[]," * 4_000_000 + "[]]",
    "long key": '{"' + "a" * 3_000_000 + '": 1}',
    "digits": '{"r": ' + DIGITS + "}",
    "control": '{"a": "\n"}',
}
ADDED = {
    "NaN": ', "lora_dropout": NaN',
    "infinity": ', "lora_dropout": -Infinity',
    "too large": ', "lora_dropout": 1e999',
    "digits": f', "x": {DIGITS}',
    "key twice": ', "r": 8',
    "key twice inside": ', "eva_config": {"a": 1, "a": 2}',
    "nested": ', "eva_config": ' + "[" * 300 + "]" * 300,
    "half a pair": ', "revision": "\\ud800"',
    "half a pair in a key": ', "\\udc00": null',
    "line end in a key": ', "x\\ny": 1',
    "colour in a key": ', "\\u001b[31m": 1',
    "null in a key": ', "a\\u0000b": 1',
    "comma": ",",
    "comment": " // of mine\n",
}
RECODED: dict[str, Callable[[str], bytes]] = {
    "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-32": lambda text: text.encode("utf-32"),
    "cut": lambda text: text[:60].encode(),
    "twice": lambda text: (text + text).encode(),
    "null at the end": lambda text: text.encode() + b"\0",
    "single quotes": lambda text: text.replace('"', "'").encode(),
}
CONTENT = [
    Damaged(f"{what} {kind} {name}", what, damage(file, content), (file,))
    for what, file in (("peft", PEFT_CONFIG), ("ours", OURS))
    for kind, damage, contents in (
        ("is", replaced, TEXTS),
        ("with", appended, ADDED),
        ("in", recoded, RECODED),
    )
    for name, content in contents.items()
]
PLACES = [
    Damaged(f"{what} {name} is {kind}", what, not_a_file(name, kind))
    for what, name in (
        ("peft", PEFT_CONFIG),
        ("peft", "adapter_model.safetensors"),
        ("ours", OURS),
        ("ours", "adapter.safetensors"),
    )
    for kind in ("folder", "pipe", "loop", "zero", "null", "nowhere", "empty", "gone")
]

OURS_WRONG: dict[str, list[Any]] = {
    "format": [5, "lori-adapter/3", GONE, [], "x" * 5000],
    "modules": [5, [], {}, None, GONE, [[]], [5], "x"],
    "dtype": ["bool", "int32", 5, ["float32"], "x", GONE],
    "base": [5, {}, None, GONE, []],
    "projection": [5, {}, None, GONE, [], {"blocks": 5}],
    "mask": [5, {}, "x", [1], GONE],
    "info": [5, None, [], "x", GONE],
    "sha256": [5, "x", None, GONE],
    "use_rslora": [1, "x", None],
    "matched_by": [5, "x", [5], None],
}
MODULE_WRONG = {
    "d_in": (1, [2**50, 2**63, 2**70, 0, -1, True, "64", 64.0, None]),
    "d_out": (2, [2**50, 2**34, 63, 0, True]),
    "rank": (3, [2**50, 2**34, 3, True, 4.0]),
    "alpha": (4, ["8", -8, 0, True, None, 10**400]),
    "name": (0, [5, None, "a\nb"]),
}
SAID = [
    *(
        Damaged(f"{key}={number}", "ours", resealed(key, value=value), ("ours/",))
        for key, values in OURS_WRONG.items()
        for number, value in enumerate(values)
    ),
    *(
        Damaged(f"module {name}={number}", "ours", resealed("modules", 0, at, value=value))
        for name, (at, values) in MODULE_WRONG.items()
        for number, value in enumerate(values)
    ),
    *(
        Damaged(f"block {key}={number}", "ours", resealed("projection", "blocks", 0, key, value=v))
        for key, values in {
            "rank": [2**34, 2**50, 3, 0, -4, True, "4", None, GONE],
            "seed": ["x", None, 7, True, GONE],
            "key": [5, "other", None],
        }.items()
        for number, v in enumerate(values)
    ),
    *(
        Damaged(f"mask {key}={number}", "ours", resealed("mask", key, value=value))
        for key, values in {"count": [5, "x", None, GONE, 2**70], "coding": ["x", 5, GONE]}.items()
        for number, value in enumerate(values)
    ),
    Damaged("edited", "ours", edited(OURS, {"fan_in_fan_out": True}), ("checksum does not fit",)),
]

#: Other commands read through the same guard.
COMMANDS = [
    Damaged(
        f"{argv[0]} {name}",
        "peft",
        edited(PEFT_CONFIG, change),
        (PEFT_CONFIG, says),
        argv,
    )
    for argv in (
        ("export", "peft", "out", "--to", "peft"),
        ("merge", "peft", "ours", "-o", "out"),
        ("interference", "peft", "ours", "-o", "out"),
        ("evaluate", "peft", "--tasks", "bundled-math", "-o", "out"),
    )
    for name, change, says in (
        ("targets", {"target_modules": 5}, "target_modules is 5"),
        ("alpha", {"lora_alpha": -8}, "lora_alpha is -8"),
        ("pattern", {"rank_pattern": {"(": 4}}, "is no regular expression"),
    )
]


@each([*OPTIONS, *EXPRESSIONS, *CONTENT, *PLACES, *SAID, *COMMANDS])
def test_an_adapters_bad_json_is_one_line(
    case: Damaged, lori: Commands, project: Path, good: Path
) -> None:
    case.check(lori, project, good)


def test_the_good_ones_are_read(lori: Commands, project: Path, good: Path) -> None:
    from bad_inputs.damage import copy_good

    copy_good(good, project)
    for name in ("peft", "ours", "mask.safetensors"):
        outcome = lori.run(["inspect", name], project)
        assert (outcome.code, outcome.err, outcome.written()) == (0, "", [])
    (project / "peft" / PEFT_CONFIG).write_text(
        json.dumps(json.loads((project / "peft" / PEFT_CONFIG).read_text()) | {
            "rank_pattern": {r".*\.q_proj": 4, "k_proj": 8},
            "target_modules": r".*\.(q|k)_proj",
        })
    )  # fmt: skip
    assert lori.run(["inspect", "peft"], project).code == 0
