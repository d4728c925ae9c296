"""A Prefect plugin that keeps the password of `make up` from other servers.

Prefect's commands in a workspace read the password from `prefect.toml` and would send it to any
server that `PREFECT_API_URL` names. Prefect loads this module by the package's entry point
`prefect.plugins`, which `prefect.toml` enables, and calls it when Prefect is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect.plugins import SetupResult, register_hook

from flows import access


@register_hook
def setup_environment(*, ctx: Any) -> SetupResult | None:
    """Clear the password, with a warning, if `PREFECT_API_URL` names another server."""
    from prefect.settings import get_current_settings

    password = get_current_settings().api.auth_string
    url = ctx.api_url or ""
    if password is None or not access.is_sent_elsewhere(Path(), url, password.get_secret_value()):
        return None
    print(
        "warning: PREFECT_API_URL names another server than that of `make up`, so the password of "
        "`make up` is not sent to it; set PREFECT_API_AUTH_STRING to that server's own, or unset "
        "PREFECT_API_URL",
        file=sys.stderr,
    )
    return SetupResult(env=access.prefect_variables(""), note="no password for another server")
