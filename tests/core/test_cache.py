from pathlib import Path

import pytest

from lori_core.core.cache import cache_folder
from lori_core.core.errors import InputError


def test_models_are_kept_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LORI_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache/lori"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/lori"
    monkeypatch.setenv("LORI_CACHE", "~/models")
    assert cache_folder() == tmp_path / "models"
    assert list(tmp_path.iterdir()) == []


def test_a_place_for_models_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LORI_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "absent"))
    todo = "; set LORI_CACHE to a folder that can be written"
    refused = f"{tmp_path}/absent/.cache/lori: models cannot be kept there: "
    with pytest.raises(InputError) as caught:
        cache_folder()
    assert str(caught.value) == f"{refused}no home folder can be used (HOME){todo}"
    monkeypatch.setenv("LORI_CACHE", str(tmp_path / "file/cache"))
    refused = f"{tmp_path}/file/cache: models cannot be kept there: "
    with pytest.raises(InputError) as caught:
        cache_folder()
    assert str(caught.value) == f"{refused}{tmp_path}/file cannot be written{todo}"
