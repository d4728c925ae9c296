"""YAML that no reader here may take, by name; each is a whole file."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from bad_inputs.cases import Content, fifo, folder, link, sparse

#: A good beginning, so that what follows is what is wrong.
GOOD = (Path(__file__).parent.parent.parent / "profiles" / "smoke.yaml").read_text()


def _bomb(kind: str) -> str:
    """Return a few lines that stand for 9**9 values."""
    opened, closed = ("[", "]") if kind == "list" else ("{", "}")
    names = "abcdefghi"
    lines = [f"a: &a {opened}{'x: 1' if kind == 'map' else 'x'}{closed}"]
    for before, name in pairwise(names):
        many = ", ".join(f"k{n}: *{before}" if kind == "map" else f"*{before}" for n in range(9))
        lines.append(f"{name}: &{name} {opened}{many}{closed}")
    return "\n".join(lines) + "\n"


def _merged_bomb() -> str:
    lines = ["a: &a {x: 1}"]
    lines += [
        f"{name}: &{name} {{<<: [{', '.join(f'*{before}' for _ in range(9))}], {name}: 1}}"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return "\n".join(lines) + "\n"


#: No YAML, or YAML with what is not read here.
TEXTS: dict[str, Content] = {
    "empty": b"",
    "spaces-only": b"   \n\n",
    "comment-only": b"# nothing\n",
    "null": b"null\n",
    "text": b"just words\n",
    "number": b"7\n",
    "list": b"- a\n- b\n",
    "bomb-of-lists": GOOD + _bomb("list"),
    "bomb-of-maps": GOOD + _bomb("map"),
    "bomb-of-merges": GOOD + _merged_bomb(),
    "holds-itself-list": GOOD + "x: &a [*a]\n",
    "holds-itself-map": GOOD + "x: &a {b: *a}\n",
    "unknown-alias": GOOD + "x: *nothing\n",
    "merge-of-a-number": GOOD + "x: {<<: 5}\n",
    "merge-of-text": GOOD + "<<: word\n",
    "nul": GOOD.encode() + b"x: a\x00b\n",
    "bell": GOOD.encode() + b"x: a\x07b\n",
    "escape": GOOD.encode() + b"x: \x1b[31m\n",
    "delete": GOOD.encode() + b"x: a\x7fb\n",
    "nul-written-as-escape": GOOD.replace("random:llama", '"random:\\0llama"'),
    "bell-written-as-escape": GOOD.replace("random:llama", '"random:\\a"'),
    "half-a-pair": GOOD.replace("random:llama", '"\\ud800"'),
    "latin-1": GOOD.encode() + "x: café\n".encode("latin-1"),
    "utf-16": GOOD.encode("utf-16"),
    "utf-16-le-without-mark": GOOD.encode("utf-16-le"),
    "utf-16-be": b"\xfe\xff" + GOOD.encode("utf-16-be"),
    "utf-32": GOOD.encode("utf-32"),
    "surrogates-in-utf-8": GOOD.encode() + b"x: \xed\xa0\x80\n",
    "overlong-utf-8": GOOD.encode() + b"x: \xc0\x80\n",
    "cut-in-a-character": GOOD.encode() + b"x: \xe2\x82",
    "bytes": bytes(range(256)) * 4,
    "gzip": b"\x1f\x8b\x08\x00" + bytes(60),
    "digits-5000": GOOD.replace("rank: 8", f"rank: {'9' * 5000}"),
    "digits-400": GOOD.replace("rank: 8", f"rank: 1{'0' * 400}"),
    "digits-30": GOOD.replace("rank: 8", f"rank: {'9' * 30}"),
    "hexadecimal-5000": GOOD.replace("rank: 8", f"rank: 0x{'f' * 5000}"),
    "float-overflow": GOOD.replace("rank: 8", "rank: 1e400"),
    "digits-5000-in-a-key": GOOD + f"{'9' * 5000}: 1\n",
    "deep-lists": GOOD + "x: " + "[" * 2000 + "]" * 2000 + "\n",
    "deep-maps": GOOD + "x: " + "{a: " * 2000 + "1" + "}" * 2000 + "\n",
    "deep-lists-open": GOOD + "x: " + "[" * 100_000,
    "deep-blocks": GOOD + "".join(f"{' ' * n}a:\n" for n in range(400)),
    "deep-dashes": GOOD + "x:\n  " + "- " * 2000 + "a\n",
    "a-key-twice": GOOD + "lori: {rank: 4}\n",
    "a-key-twice-inside": GOOD.replace("rank: 8", "rank: 8\n  rank: 4"),
    "tag-python-object": GOOD + "x: !!python/object/apply:os.system [touch made]\n",
    "tag-python-name": GOOD + "x: !!python/name:os.system\n",
    "tag-binary": GOOD + "x: !!binary aGVsbG8=\n",
    "tag-set": GOOD + "x: !!set {a, b}\n",
    "tag-omap": GOOD + "x: !!omap [a: 1]\n",
    "tag-float": GOOD.replace("rank: 8", "rank: !!float eight"),
    "tag-int": GOOD.replace("rank: 8", "rank: !!int eight"),
    "tag-bool": GOOD.replace("rank: 8", "rank: !!bool maybe"),
    "tag-str": GOOD.replace("rank: 8", "rank: !!str 8"),
    "tag-own": GOOD.replace("rank: 8", "rank: !mine 8"),
    "tag-timestamp": GOOD.replace("rank: 8", "rank: !!timestamp now"),
    "two-documents": GOOD + "---\n" + GOOD,
    "two-documents-empty": GOOD + "---\n",
    "directive-1.1": "%YAML 1.1\n---\n" + GOOD,
    "directive-3": "%YAML 3.0\n---\n" + GOOD,
    "directive-tag": "%TAG ! tag:x,2000:\n---\n" + GOOD,
    "tab": GOOD.replace("  rank: 8", "\trank: 8"),
    "indentation": GOOD.replace("  rank: 8", "   rank: 8"),
    "colon-missing": GOOD.replace("rank: 8", "rank 8"),
    "open-list": GOOD + "x: [1, 2\n",
    "open-quote": GOOD + "x: 'abc\n",
    "open-map": GOOD + "x: {a: 1\n",
    "percent": GOOD + "x: %a\n",
    "at": GOOD + "x: @a\n",
    "backtick": GOOD + "x: `a`\n",
    "key-number": GOOD + "7: a\n",
    "key-null": GOOD + "~: a\n",
    "key-true": GOOD + "true: a\n",
    "key-list": GOOD + "? [a, b]\n: c\n",
    "key-map": GOOD + "? {a: b}\n: c\n",
    "key-empty": GOOD + "'': a\n",
    "key-date": GOOD + "2020-01-01: a\n",
    "key-long": GOOD + f"{'k' * 900}: a\n",
    "key-with-a-line": GOOD + '"a\\nb": 1\n',
    "key-with-a-bell": GOOD + '"a\\ab": 1\n',
    "date": GOOD.replace("rank: 8", "rank: 2020-01-01"),
    "date-that-is-none": GOOD.replace("rank: 8", "rank: 2020-13-45"),
    "time": GOOD.replace("rank: 8", "rank: 2020-01-01T10:00:00Z"),
    "date-for-text": GOOD.replace("random:llama", "2020-01-01"),
    "yes-for-true": GOOD.replace("unsafe_code: false", "unsafe_code: yes"),
    "off-for-false": GOOD.replace("unsafe_code: false", "unsafe_code: off"),
    "one-for-true": GOOD.replace("unsafe_code: false", "unsafe_code: 1"),
    "text-true": GOOD.replace("unsafe_code: false", "unsafe_code: 'true'"),
    "sexagesimal": GOOD.replace("rank: 8", "rank: 1:30"),
    "rank-in-quotes": GOOD.replace("rank: 8", "rank: '8'"),
    "rank-float": GOOD.replace("rank: 8", "rank: 8.0"),
    "rank-true": GOOD.replace("rank: 8", "rank: true"),
    "rank-anchored-true": GOOD.replace("rank: 8", "rank: &x true"),
    "rank-nan": GOOD.replace("rank: 8", "rank: .nan"),
    "rank-inf": GOOD.replace("rank: 8", "rank: -.inf"),
    "nan-in-an-unknown-key": GOOD + "x: .nan\n",
    "many-values": GOOD + "x: [" + "1, " * 30_000 + "1]\n",
    "too-large": GOOD + "# " + "x" * 400_000 + "\n",
    "200-MB-of-zeros": sparse(200 << 20),
    "8-GB-of-zeros": sparse(8 << 30),
    "json-cut": b'{"model": {"name_or_path": "random:llama"',
}

#: No files.
PLACES: dict[str, Content] = {
    "a-folder": folder,
    "a-pipe": fifo,
    "a-link-to-itself": lambda path: path.symlink_to(path.name),
    "a-link-to-nothing": link("nothing"),
    "zeros-without-end": link("/dev/zero"),
    "a-terminal": link("/dev/tty"),
    "a-full-device": link("/dev/full"),
    "the-null-device": link("/dev/null"),
    "a-process-file": link("/proc/self/mem"),
}


def checked(contents: dict[str, Content]) -> list[tuple[str, Content]]:
    """Return texts by name; one that equals the good one has found nothing to replace."""
    for name, content in contents.items():
        assert isinstance(content, Callable) or content != GOOD, name  # type: ignore[arg-type]
    return list(contents.items())
