"""Which folders a command may write: nothing that is not its own output is ever deleted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lori_cli import main
from lori_core.adapters import adapter_file, output_folder
from lori_core.adapters.extraction import EXTRACTION
from lori_core.adapters.output_folder import Kind, check, claim
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import InputError
from lori_core.merging.merge import merge
from lori_core.methods import finetuned_model
from support import peft_folder, random_adapter, refused, tiny

#: Writes one file, which is how its folders are known.
ONE = Kind("lori one", lambda folder: {"one.json"} if (folder / "one.json").exists() else set())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an input, a folder of the user's and an earlier output."""
    monkeypatch.chdir(tmp_path)
    put(Path("in/adapter.json"), Path("mine/notes.txt"), Path("out/one.json"))
    Path("empty").mkdir()
    return tmp_path


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*.*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, *, force: bool = False) -> None:
    with claim(path, ONE, [Path("in")], force=force) as work:
        (work / "one.json").write_text("new")


@pytest.mark.parametrize("name", ["new", "deep/new", "empty", "out", "out/", "./in/../out"])
def test_a_free_folder_or_an_earlier_output_is_written(here: Path, name: str) -> None:
    write(Path(name))
    assert files(Path(name)) == {"one.json": "new"}
    assert not list(here.glob(".*"))


@pytest.mark.parametrize("name", ["mine", "mine/", "in/../mine"])
def test_a_folder_of_the_users_is_kept(here: Path, name: str) -> None:
    before = files(here)
    with pytest.raises(InputError, match=r"holds notes\.txt; .* with --force") as caught:
        write(Path(name))
    assert str(caught.value).startswith(str(Path(name)))
    assert files(here) == before
    write(Path(name), force=True)
    assert files(Path("mine")) == {"one.json": "new"}


@pytest.mark.parametrize("extra", ["a.txt", ".hidden.txt", "sub/a.txt", "z/y/x.txt"])
def test_one_file_of_the_users_keeps_an_earlier_output(here: Path, extra: str) -> None:
    put(Path("out", extra))
    before = files(here)
    with pytest.raises(InputError, match=f"holds {extra};"):
        write(Path("out"))
    assert files(here) == before


def test_links_and_empty_folders_inside_are_the_users(here: Path) -> None:
    Path("out/one.json").unlink()
    Path("out/one.json").symlink_to(here / "mine/notes.txt")
    with pytest.raises(InputError, match=r"holds one\.json;"):
        write(Path("out"))
    Path("out/one.json").unlink()
    Path("out/later").mkdir()
    with pytest.raises(InputError, match="holds later/;"):
        write(Path("out"))
    Path("out/later").rmdir()
    Path("out/linked").symlink_to(here / "mine")
    with pytest.raises(InputError, match="holds linked;"):
        write(Path("out"))
    write(Path("out"), force=True)
    assert files(Path("mine")) == {"notes.txt": "kept"}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("in", "is, or lies in, the input in"),
        ("in/", "is, or lies in, the input in"),
        ("mine/../in", "is, or lies in, the input in"),
        ("in/inside", "is, or lies in, the input in"),
        ("link", "is, or lies in, the input in"),
        ("link/inside", "is, or lies in, the input in"),
        (".", "holds the input in"),
        ("", "holds the input in"),
        ("mine/..", "holds the input in"),
        ("..", "holds the input in"),
        ("/", "holds the input in"),
        ("to-mine", "is a link to mine; name the folder itself"),
        ("to-nothing", "is a link to nothing; name the folder itself"),
        ("mine/notes.txt", "is no folder; name a folder"),
        (".git", r"lies in \.git, which is git's or DVC's"),
        (".dvc/cache", r"lies in \.dvc, which is git's or DVC's"),
        ("mine/notes.txt/out", "notes.txt is no folder; name a folder"),
    ],
)
def test_what_is_never_written(here: Path, name: str, message: str, force: bool) -> None:
    for link, target in (("link", "in"), ("to-mine", "mine"), ("to-nothing", "nothing")):
        Path(link).symlink_to(target)
    put(Path(".git/HEAD.x"), Path(".dvc/cache/a.b"))
    before = files(here)
    with pytest.raises(InputError, match=message):
        write(Path(name), force=force)
    assert files(here) == before
    assert not Path("nothing").exists()


@pytest.mark.parametrize("force", [False, True])
def test_what_somebody_stands_on_is_never_replaced(
    here: Path, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(Path("a/b/c/one.json"), Path("home/one.json"))
    monkeypatch.setenv("HOME", str(here / "home"))
    monkeypatch.chdir("a/b")
    for name, message in ((".", "current"), ("..", "current"), ("../../home", "home")):
        with pytest.raises(InputError, match=f"is, or holds, the {message} folder"):
            check(Path(name), ONE, force=force)
    with pytest.raises(InputError, match="is a mount point; name a folder inside it"):
        check(Path("/proc"), ONE, force=force)
    check(Path("c"), ONE)


@pytest.mark.parametrize("mark", [".git", ".dvc"])
def test_a_repository_is_not_deleted_even_by_force(here: Path, mark: str) -> None:
    put(Path("mine", "project", mark, "config.txt"))
    with pytest.raises(InputError, match=rf"holds project/\{mark}; delete it yourself"):
        write(Path("mine"), force=True)
    assert Path("mine/notes.txt").exists()


def test_what_the_folder_is_written_under_is_no_input(here: Path) -> None:
    put(Path(".new.lori.new/adapter.json"))
    with pytest.raises(InputError, match=r"is, or lies in, the input \.new\.lori\.new"):
        check(Path("new"), ONE, [Path(".new.lori.new")])


@pytest.mark.parametrize("end", ["new", "old"])
def test_a_repository_beside_an_output_is_not_deleted(here: Path, end: str) -> None:
    put(Path(f".out.lori.{end}/project/.git/HEAD.x"))
    before = files(here)
    for force in (False, True):
        with pytest.raises(InputError, match=rf"\.lori\.{end}: holds project/\.git; delete it"):
            write(Path("out"), force=force)
    assert files(here) == before


def test_a_failure_leaves_the_folder_as_it_was(here: Path) -> None:
    for name in ("out", "new"):
        with pytest.raises(ZeroDivisionError), claim(Path(name), ONE) as work:
            (work / "one.json").write_text("half")
            raise ZeroDivisionError
    assert files(Path("out")) == {"one.json": "kept"}
    assert not Path("new").exists()
    assert not list(here.glob(".*"))


def test_what_came_while_the_command_ran_is_kept(here: Path) -> None:
    with pytest.raises(InputError, match=r"holds late\.txt;"), claim(Path("out"), ONE) as work:
        (work / "one.json").write_text("new")
        put(Path("out/late.txt"))
    assert files(Path("out")) == {"one.json": "kept", "late.txt": "kept"}


def adapters(folder: Path) -> None:
    for seed, name in enumerate("ab", start=1):
        adapter_file.save(random_adapter(key=name, seed=seed), folder / name)


#: Commands with OUT for their folder, and the first of a user's files that are named alike.
COMMANDS = {
    "merge": ["merge", "a", "b", "-o", "OUT"],
    "peft": ["export", "a", "OUT", "--to", "peft"],
    "merged": ["export", "a", "OUT", "--to", "merged"],
    "interference": ["interference", "a", "b", "-o", "OUT"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_replaces_its_own_output_and_nothing_else(
    here: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters(here)

    def argv(out: str, *more: str) -> list[str]:
        return [out if part == "OUT" else part for part in COMMANDS[name]] + list(more)

    assert main(argv("new")) == 0
    written = names(Path("new"))
    assert main(argv("new")) == 0
    assert names(Path("new")) == written
    put(Path("new/notes.txt"))
    capsys.readouterr()
    assert "holds notes.txt; name another folder" in refused(capsys, *argv("new"))
    assert names(Path("new")) == sorted([*written, "notes.txt"])
    assert main(argv("new", "--force")) == 0
    assert names(Path("new")) == written
    capsys.readouterr()
    for out in ("a", "a/inside", "."):
        for more in ([], ["--force"]):
            assert "the input a" in refused(capsys, *argv(out, *more))
    alike = here / "alike"  # files of these names that another program wrote
    for file in written:
        put(alike / file)
    assert f"holds {written[0]}; " in refused(capsys, *argv("alike"))


def theirs(folder: Path) -> None:
    peft_folder(folder)
    (folder / "README.md").unlink()


def baked_by_hand(folder: Path) -> None:
    tiny("llama")[0].save_pretrained(folder)


def trained(folder: Path) -> None:
    adapter_file.save(random_adapter(key="c"), folder)


def trained_ia3(folder: Path) -> None:
    one = random_adapter()
    tensors = {"w": one.A(next(iter(one.modules)))}
    made = finetuned_model.FinetunedModel(one.base, tensors, {"peft_type": "IA3"})
    finetuned_model.save(made, folder)


def extracted(folder: Path) -> None:
    one = random_adapter()
    info = one.info | {EXTRACTION: {"rank": 4, "kept": 1.0, "modules": {}, "ignored": []}}
    peft_file.export_peft(replace(one, info=info), folder)


def exported(folder: Path) -> None:
    peft_file.export_peft(random_adapter(), folder)


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        (output_folder.PEFT, theirs),
        (output_folder.PEFT, trained_ia3),
        (output_folder.PEFT, extracted),
        (output_folder.TO_PUSH, theirs),
        (output_folder.TO_PUSH, trained_ia3),
        (output_folder.TO_PUSH, extracted),
        (output_folder.TO_PUSH, exported),
        (output_folder.EXTRACTED, exported),
        (output_folder.EXTRACTED, trained_ia3),
        (output_folder.MERGED_BASE, baked_by_hand),
        (output_folder.MERGED, trained),
    ],
)
def test_what_is_no_output_of_the_command_is_not_taken_for_one(
    here: Path, kind: Kind, write: Callable[[Path], object]
) -> None:
    write(Path("x"))
    with pytest.raises(InputError, match=f"or an earlier output of {kind.command}: it holds"):
        check(Path("x"), kind)


def test_what_a_command_wrote_is_recognised(here: Path) -> None:
    one = random_adapter()
    adapter_file.save(merge("concat", [one], [1.0]), Path("merged"))
    check(Path("merged"), output_folder.MERGED)
    peft_file.export_peft(one, Path("peft"))
    check(Path("peft"), output_folder.PEFT)
    put(Path("peft/README.md"))  # a card that a user wrote, unless it was to be pushed
    check(Path("peft"), output_folder.TO_PUSH)
    with pytest.raises(InputError, match=r"holds README\.md"):
        check(Path("peft"), output_folder.PEFT)
    extracted(Path("extracted"))
    check(Path("extracted"), output_folder.EXTRACTED)
    trained_ia3(Path("tuned"))
    put(Path("tuned/README.md"))
    check(Path("tuned"), output_folder.TO_PUSH)


def test_an_evaluation_is_known_by_its_results(here: Path) -> None:
    scores = {
        "base": {"math": {"score": 1, "paper": {}}},
        "math/adapter": {"lm-eval/arc/easy": {}, "code": {"likelihood": {}}},
        "mean of 2": {"math": {}},
    }
    put(*(Path("x", n) for n in ("base/math.jsonl", "base/math.paper.jsonl")))
    put(Path("x/math/adapter/lm-eval.arc-easy.jsonl"), Path("x/math/adapter/code.jsonl"))
    put(Path("x/math/adapter/code.likelihood.jsonl"))
    results = Path("x/results.json")
    results.write_text(json.dumps({"scores": scores, "seconds": {}}))
    check(Path("x"), output_folder.EVALUATION)
    put(Path("x/base/train.jsonl"))
    with pytest.raises(InputError, match=r"holds base/train\.jsonl"):
        check(Path("x"), output_folder.EVALUATION)
    for broken in ("[]", '{"scores": [], "seconds": {}}', '{"scores": {"a": 1}, "seconds": 1}'):
        results.write_text(broken)
        with pytest.raises(InputError, match=r"holds results\.json"):
            check(Path("x"), output_folder.EVALUATION)
