"""The sections `execution`, `tracking`, `storage` and `gate` of `params.yaml`."""

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
    Unique,
)
from lori_core.registries.engine import ENGINES

#: The URI of an MLflow tracking server or database.
TrackingAddress = Annotated[
    Text,
    Field(pattern=r"^(databricks|(https?|sqlite|(postgresql|mysql|mssql)(\+\w+)?)://[^\s]+)$"),
]
RayAddress = Annotated[
    Text, Field(pattern=r"^(auto|local|(ray://)?[A-Za-z0-9_.:\[\]-]+:[0-9]{1,5})$")
]


class ExecutionSection(Strict):
    """Where stages run; no result depends on it."""

    engine: Annotated[str, AfterValidator(ENGINES.check)] = "local"
    """local: processes on this machine. ray: nodes of a Ray cluster (needs the extra `ray`). Or an
    engine of an extension (`lori_core.registries.engine`)."""
    ray_address: RayAddress | None = None
    """The cluster, as ray://head:10001 or auto; null starts a cluster on this machine."""
    exchange: Literal["shared", "remote"] = "shared"
    """How Ray's nodes exchange artifacts: through this folder, mounted at the same path on all
    nodes, or through the default DVC remote and its run cache."""
    gpus: Few | Literal["auto"] = "auto"
    """GPUs that stages may use."""
    share_gpus: Few | Literal["auto"] = "auto"
    """The most stages on one GPU at once, if their forecast memory fits; auto: as many as there
    are idle CPU cores; 1: no sharing."""
    cpu_stages: Few = 1
    """Without GPUs: the stages that run at once, each with an equal part of the CPU cores. Memory
    is not divided: each stage loads its own base model."""
    retries: Retries = 1
    """How often a crashed stage is restarted; a stage with wrong input never is."""


class TrackingSection(Strict):
    """Where runs are recorded; no result depends on it."""

    uri: TrackingAddress | None = None
    """An MLflow tracking server or database; null for an SQLite file in the workspace."""
    experiment: Text = "lori"


class StorageSection(Strict):
    """Where artifacts are stored besides this machine; no result depends on it."""

    remote: PathText | None = None
    """A folder, or a URL: s3://bucket/path, gs://…, azure://…, ssh://… (each by its extra)."""
    push: Literal["never", "stage", "end"] = "end"
    """When outputs are pushed: after each stage, at the end of the run, or never."""
    retries: Retries = 3
    """How often a failed push is retried."""


class Bound(Strict):
    """The bounds of a rule of the gate; at least one is required."""

    at_least: Number | None = None
    at_most: Number | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Bound:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a rule needs at_least or at_most, as in {at_least: 0.8}")
        return self


class GateSection(Strict):
    """The conditions for a candidate to become the champion (docs/lineage.md)."""

    candidate: Text | None = None
    """The artifact to judge, as artifacts/merged/concat; null for the first merge."""
    model: Name = "lori"
    """The registered model whose alias `champion` moves to a candidate that passes."""
    confidence: Annotated[Share, Field(gt=0.5)] = 0.95
    """The confidence level of the non-inferiority test against the champion."""
    margin: Share = 0.05
    """The margin of the non-inferiority test: how much a task's score may drop below the
    champion's. 0.05 is five points, which needs at least 59 items at 95 %. 0 requires the candidate
    to be better."""
    margins: dict[Name, Share] = Field(default_factory=dict)
    """Margins by task, in the place of `margin`."""
    least_items: PositiveInt = 30
    """The fewest items of a task for the test to be conclusive."""
    setups: Unique[Text] = ()
    """Set-ups of `evaluation.setups` in which refusal and over_refusal also have to hold; the worst
    set-up decides."""
    rules: dict[str, Bound] = Field(default_factory=dict)
    """Bounds on refusal, over_refusal, incoherent, forgetting (of refusals, against the safety
    adapter alone), size_mb, score.<task>, excess.<task>, retained.<task> (the share of the gain
    in held-out loss that the task's own adapter has over the base)."""
