"""Safetensors files: headers that do not fit, tensors that are no adapter's, masks."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from bad_inputs.commands import Commands
from bad_inputs.damage import GONE, KEYS, PEFT_WEIGHTS, Damaged, Header, each, tensors

#: What an entry of the header must not say.
WRONG: dict[str, list[Any]] = {
    "dtype": ["I32", "I64", "BOOL", "U8", "F8_E4M3", "F3", "", None, 5, ["F32"], GONE, "F" * 9999],
    "shape": [
        *([4.0, 64], [-4, 64], ["4", "64"], [[4], 64], [True, 256], [0, 64], [], [256], [8, 64]),
        *([2**50, 64], [2**63, 2**63], [64, 4], "4x64", None, {"a": 1}, 256, GONE, [1] * 5000),
    ],
    "data_offsets": [
        *([0.0, 1024.0], [-1, 1023], [1024, 0], [0, 2**40], [2**63, 2**64], [0], [0, 512, 1024]),
        *([4, 1028], [0, 1023], ["0", "1024"], [False, 1024], "ab", None, {}, GONE, [0, 2**70]),
    ],
}


def said(key: str, value: Any) -> Any:
    def change(header: Header, _: bytes) -> None:
        if value is GONE:
            del header[KEYS[0]][key]
        else:
            header[KEYS[0]][key] = value

    return tensors(change)


ENTRIES = [
    Damaged(f"{key}={number}", "peft", said(key, value), (PEFT_WEIGHTS,))
    for key, values in WRONG.items()
    for number, value in enumerate(values)
]


def entry(value: Any) -> Any:
    return tensors(lambda header, _: header.update({KEYS[0]: value}))


def metadata(value: Any) -> Any:
    return tensors(lambda header, _: header.update({"__metadata__": value}))


def renamed(name: str) -> Any:
    return tensors(lambda header, _: header.update({name: header.pop(KEYS[0])}))


def number_at(place: int, number: float) -> Any:
    value = struct.pack("<f", number)
    return tensors(lambda header, data: (header, data[:place] + value + data[place + 4 :]))


def twice(header: Header, data: bytes) -> tuple[bytes, bytes]:
    again = f", {json.dumps(KEYS[0])}: {json.dumps(header[KEYS[0]])}}}"
    return (json.dumps(header)[:-1] + again).encode(), data


def many(_: Header, data: bytes) -> tuple[Header, bytes]:
    none = {"dtype": "F32", "shape": [0, 1], "data_offsets": [0, 0]}
    return {f"base_model.model.m{n}.lora_A.weight": none for n in range(200_000)}, b""


HEADERS = [
    *(Damaged(f"entry={n}", "peft", entry(v)) for n, v in enumerate((5, None, [], "x", {}))),
    *(
        Damaged(f"metadata={n}", "peft", metadata(v), ("__metadata__",))
        for n, v in enumerate(([1], "x", 5, {"a": 1}, {"a": {"b": "c"}}, {"a": None}))
    ),
    *(
        Damaged(f"lori={n}", "peft", metadata({"lori": v}), (PEFT_WEIGHTS,))
        for n, v in enumerate(
            (
                *("x", "[]", "5", "null", "[" * 9000, '{"base": 1}', '{"a": NaN}'),
                '{"x": ' + "9" * 6000 + "}",
            )
        )
    ),
    Damaged("a tensor twice", "peft", tensors(twice), ("twice",)),
    Damaged("many tensors", "peft", tensors(many)),
    Damaged(
        "overlapping",
        "peft",
        tensors(lambda h, _: h[KEYS[1]].update({"data_offsets": [512, 1536]})),
        ("side by side",),
    ),
    Damaged("cut", "peft", tensors(lambda h, d: (h, d[:-7])), ("cut off",)),
    Damaged("longer", "peft", tensors(lambda h, d: (h, d + b"abc")), ("expected",)),
    Damaged("a tensor missing", "peft", tensors(lambda h, d: ({KEYS[0]: h[KEYS[0]]}, d[:1024]))),
    *(
        Damaged(f"{n} at {at}", "peft", number_at(at, float(n)), ("finite",))
        for n, at in (("nan", 40), ("inf", 1100), ("-inf", 0))
    ),
    *(
        Damaged(f"name={n}", "peft", renamed(name))
        for n, name in enumerate(
            (
                *("", "x.lora_A.weight", "base_model.model.a.lora_magnitude_vector", "a\nb"),
                *("base_model.model.a\0.lora_A.weight", "base_model.model.\ud800.lora_A.weight"),
                *("base_model.model." + "a" * 100_000 + ".lora_A.weight", "base_model.model.x"),
                "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight",
            )
        )
    ),
]  # fmt: skip


def sized(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


WHOLE = {
    "empty": b"",
    "short": b"\1\2",
    "no header": b"\0" * 8,
    "zeros": b"\0" * 4096,
    "length 2^60": struct.pack("<Q", 2**60) + b"{}",
    "length -1": b"\xff" * 64,
    "text": b"this is a text file\n" * 20,
    "a list": sized(b"[]"),
    "no tensors": sized(b"{}"),
    "a number": sized(b"5"),
    "NaN": sized(b'{"a": NaN}'),
    "nested": sized(b"[" * 100_000),
    "utf-16": sized("{}".encode("utf-16")),
    "latin": sized(b'{"\xe9": 1}'),
    "many lists": sized(b"[" + b"[]," * 2_000_000 + b"[]]"),
    "long header": sized(b" " * (20 << 20)),
    "pickle": b"\x80\x04\x95." * 9,
    "zip": b"PK\3\4" + b"\0" * 100,
    "gguf": b"GGUF\3\0\0\0" + b"\0" * 64,
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n",
}
FILES = [
    *(
        Damaged(f"peft {name}", "peft", tensors(lambda h, d, c=content: c), (PEFT_WEIGHTS,))
        for name, content in WHOLE.items()
    ),
    *(
        Damaged(
            f"mask {name}",
            "mask.safetensors",
            tensors(lambda h, d, c=content: c, ""),
            ("mask.safetensors",),
        )
        for name, content in WHOLE.items()
    ),
]


def mask(key: str, value: str) -> Any:
    """Return what changes what a mask says of itself, and seals it again."""

    def damage(path: Path) -> None:
        from lori_core.core.files.atomic import ZERO_DIGEST, seal

        def change(header: Header, _: bytes) -> None:
            held = header["__metadata__"]
            held["sha256"] = ZERO_DIGEST
            held[key] = value

        tensors(change, "")(path)
        if key != "sha256":
            seal(path)

    return damage


SHAPES: list[Any] = [
    *([["a", 2**50, 4]], [["a", -64, -4]], [["a", 64.5, 4]], [["a", "64", "4"]], [[5, 64, 4]]),
    *([[["a"], 64, 4]], [["a", 64]], [["a", 64, 4], ["a", 64, 4]], [["a", True, 256]], [], {}, 5),
    *([["a", 0, 0]], [["a", 2**70, 2**70]], [["a", None, 4]], "x"),
]
MASKS = [
    *(
        Damaged(f"shapes={n}", "mask.safetensors", mask("shapes", json.dumps(value)))
        for n, value in enumerate(SHAPES)
    ),
    *(
        Damaged(f"{key}: {text[:8]}", "mask.safetensors", mask(key, text))
        for key in ("shapes", "facts", "format")
        for text in ("", "x", "[", "null", "NaN", "[" * 5000, "9" * 6000, '{"count": 5}')
    ),
    *(
        Damaged(f"count={n}", "mask.safetensors", mask("facts", json.dumps({"count": value})))
        for n, value in enumerate(("x", None, 2**70, [1]))
    ),
    Damaged("seal", "mask.safetensors", mask("sha256", "x")),
]


@each([*ENTRIES, *HEADERS, *FILES, *MASKS])
def test_a_bad_safetensors_file_is_one_line(
    case: Damaged, lori: Commands, project: Path, good: Path
) -> None:
    case.check(lori, project, good)
