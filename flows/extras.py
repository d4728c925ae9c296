"""The optional dependencies, which `pip install 'lori[NAME]'` installs."""

from __future__ import annotations

from importlib.util import find_spec

from lori_core.core.errors import InputError

#: The importable modules of each extra.
EXTRAS = {
    "ray": ("ray", "prefect_ray"),
    "quantization": ("bitsandbytes",),
    "s3": ("dvc_s3", "boto3"),
    "kubernetes": ("prefect_kubernetes",),
    "postgres": ("psycopg2",),
}


def missing(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


def need(extra: str, what: str) -> None:
    """Refuse a setting whose extra is not installed.

    Raises:
        InputError: the message names the setting `what` and the extra.
    """
    if missing(extra):
        raise InputError(
            f"{what} needs {' and '.join(missing(extra))}: pip install 'lori[{extra}]'"
        )
