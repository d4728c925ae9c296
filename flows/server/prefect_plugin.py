"""Prefect's commands, typed in a workspace, send the password of `make up` to its server alone.

`prefect.toml` gives that password to whatever server `PREFECT_API_URL` names. Prefect finds this
module by the package's entry point `prefect.plugins`, which that file switches on, and asks it when
Prefect is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect.plugins import SetupResult, register_hook

from flows import access


@register_hook
def setup_environment(*, ctx: Any) -> SetupResult | None:
    """Take the password away where another server would get it."""
    from prefect.settings import get_current_settings

    given = get_current_settings().api.auth_string
    url = ctx.api_url or ""
    if given is None or not access.is_sent_elsewhere(Path(), url, given.get_secret_value()):
        return None
    print(
        "warning: PREFECT_API_URL names another server than that of `make up`, whose password it "
        "does not get; set PREFECT_API_AUTH_STRING to that server's own, or unset PREFECT_API_URL",
        file=sys.stderr,
    )
    return SetupResult(env=access.prefect_variables(""), note="no password for another server")
