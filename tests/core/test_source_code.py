"""The code's part of a content key."""

import hashlib
from pathlib import Path

from lori_core.core import source_code


def test_the_digest_is_the_md5_that_dvc_records() -> None:
    found = source_code.digests(["adapters/masks/mask.py"])
    source = Path(source_code.__file__).parents[1] / "adapters/masks/mask.py"
    assert found == {
        "lori_core/adapters/masks/mask.py": hashlib.md5(
            source.read_bytes(), usedforsecurity=False
        ).hexdigest()
    }
