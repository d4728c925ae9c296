"""Where a run happens, what is kept of it, and what may be served."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lori_core.config.validation import (
    Few,
    Name,
    Number,
    PathText,
    PositiveInt,
    Retries,
    Share,
    Strict,
    Text,
)
from lori_core.registries.engine import ENGINES

#: Databases and servers in which MLflow keeps runs.
TrackingAddress = Annotated[
    Text,
    Field(pattern=r"^(databricks|(https?|sqlite|(postgresql|mysql|mssql)(\+\w+)?)://[^\s]+)$"),
]
RayAddress = Annotated[
    Text, Field(pattern=r"^(auto|local|(ray://)?[A-Za-z0-9_.:\[\]-]+:[0-9]{1,5})$")
]


class ExecutionSection(Strict):
    """When and where stages run; no result depends on it."""

    engine: Annotated[str, AfterValidator(ENGINES.check)] = "local"
    """local: processes of this machine. ray: nodes of a Ray cluster (needs the extra `ray`). Or one
    that an extension registers (`lori_core.registries.engine`)."""
    ray_address: RayAddress | None = None
    """The cluster, as in ray://head:10001 or auto; without one, a cluster on this machine."""
    exchange: Literal["shared", "remote"] = "shared"
    """How Ray's nodes get each other's artifacts: through this folder, which all of them see at the
    same path, or through the default DVC remote and its run cache."""
    gpus: Few | Literal["auto"] = "auto"
    """GPUs that stages may use."""
    share_gpus: Few | Literal["auto"] = "auto"
    """Stages that may run on one GPU at once, where the memory that they are forecast to need fits
    together; auto: as many as there are idle cores for; 1: each has a GPU to itself."""
    retries: Retries = 1
    """How often a crashed stage is started again; bad input never is."""


class TrackingSection(Strict):
    """Where runs are recorded; no result depends on it."""

    uri: TrackingAddress | None = None
    """An MLflow tracking server or database; a SQLite file in the workspace unless given."""
    experiment: Text = "lori"


class StorageSection(Strict):
    """Where artifacts are kept besides this machine; no result depends on it."""

    remote: PathText | None = None
    """A folder, or a URL: s3://bucket/path, gs://…, azure://…, ssh://… (each by its extra)."""
    push: Literal["never", "stage", "end"] = "end"
    """Send what a stage made when it ends, or all of it when the run ends."""
    retries: Retries = 3
    """How often a push that failed is tried again."""


class Bound(Strict):
    """What a rule of the gate asks of one number; at least one end is given."""

    at_least: Number | None = None
    at_most: Number | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Bound:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a rule needs at_least or at_most, as in {at_least: 0.8}")
        return self


class GateSection(Strict):
    """What a model must be before it is served (docs/lineage.md)."""

    candidate: Text | None = None
    """The artifact to judge, as in artifacts/merged/concat; the first merge unless given."""
    model: Name = "lori"
    """The registered model whose alias `champion` moves to a candidate that passes."""
    confidence: Annotated[Share, Field(gt=0.5)] = 0.95
    """With which a task is not worse than the champion by more than its margin."""
    margin: Share = 0.05
    """How much of its score a task may lose to the champion; 0.05 is five points, which takes 59
    items or more to show at 95 %. 0 asks for a proof that the candidate is better."""
    margins: dict[Name, Share] = Field(default_factory=dict)
    """Another margin for some tasks."""
    least_items: PositiveInt = 30
    """Fewer items than these tell nothing about a task, whatever its margin."""
    rules: dict[str, Bound] = Field(default_factory=dict)
    """Bounds on refusal, over_refusal, incoherent, forgetting (of refusals, against the safety
    adapter alone), size_mb, score.<task>, excess.<task>."""
