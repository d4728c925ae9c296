"""What the caller of the flow has already done in this process."""

from __future__ import annotations

from contextvars import ContextVar

from flows.versioning import graph

#: The plan that the caller of the flow made after it had pulled the data and written the
#: experiments' stages, holding the pipeline lock since; None if the flow does this itself. It is
#: not in `flows.pipeline`, whose globals are pickled with the flow for the nodes of a cluster.
PLAN: ContextVar[graph.Plan | None] = ContextVar("prepared", default=None)
