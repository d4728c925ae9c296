"""What is installed only on request: `pip install 'lori[NAME]'`."""

from __future__ import annotations

from importlib.util import find_spec

from lori_core.core.errors import InputError

#: Each extra's modules, as they are imported.
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
        InputError: naming the setting and the extra.
    """
    if missing(extra):
        raise InputError(
            f"{what} needs {' and '.join(missing(extra))}: pip install 'lori[{extra}]'"
        )
