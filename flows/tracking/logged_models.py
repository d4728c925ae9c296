"""MLflow's logged models: one for each adapter, which runs, metrics and versions point to.

A logged model describes an adapter: type, base, rank, size, parents, and metrics with the data set
they were measured on. It holds no files until the adapter is registered; the bytes are DVC's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

#: Tags of a logged model and of a registered version: the artifact's path, DVC's hash of it, its
#: content key, and whether all its files were uploaded.
PATH, MD5, KEY, COMPLETE = "lori.path", "lori.md5", "lori.content_key", "lori.complete"
#: The most characters of a data set's digest in MLflow.
DIGEST_LENGTH = 36
PAGE = 100
#: The characters that MLflow forbids in the name of a logged model.
_FORBIDDEN = re.compile(r"[/:.%\"']")


@dataclass(frozen=True)
class Measurement:
    """A metric of a model, and the data set it was measured on.

    Attributes:
        name: the metric, such as `score.math`.
        value: its value.
        dataset: the data set's name, such as `math/test`.
        digest: the data set's digest; MLflow keeps the first 36 characters.
    """

    name: str
    value: float
    dataset: str
    digest: str


def name_of(path: str) -> str:
    """Return the name of an artifact's model: `artifacts/math/adapter` is `math-adapter`."""
    return _FORBIDDEN.sub("-", path.removeprefix("artifacts/"))


def create(
    client: Any,
    experiment_id: str,
    name: str,
    tags: Mapping[str, str],
    run_id: str | None,
    params: Mapping[str, str],
    kind: str,
) -> str:
    """Create a logged model that is ready; return its id.

    Args:
        client: an `MlflowClient`.
        experiment_id: the experiment of the model.
        name: the model's name; characters that MLflow forbids become `-`.
        tags: the model's tags.
        run_id: the run that made the adapter; None if it is not known.
        params: the model's parameters.
        kind: the model's type in MLflow.
    """
    model = client.create_logged_model(
        experiment_id, _FORBIDDEN.sub("-", name), run_id, dict(tags), dict(params), kind
    )
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def by_artifact(
    client: Any, experiment_id: str, keys: Iterable[str], kinds: Sequence[str]
) -> dict[tuple[str, str], Any]:
    """Return the logged models of these types by content key and MD5, the oldest of each.

    Args:
        client: an `MlflowClient`.
        experiment_id: the experiment to search.
        keys: the content keys to look for.
        kinds: the types of models.
    """
    models: dict[tuple[str, str], Any] = {}
    wanted = sorted({key for key in keys if "'" not in key})
    for start in range(0, len(wanted), PAGE):
        listed = ", ".join(f"'{key}'" for key in wanted[start : start + PAGE])
        for model in _search(client, experiment_id, f"tags.`{KEY}` IN ({listed})"):
            place = model.tags.get(KEY, ""), model.tags.get(MD5, "")
            if model.model_type in kinds:
                models.setdefault(place, model)
    return models


def _search(client: Any, experiment_id: str, condition: str) -> Iterable[Any]:
    order = [{"field_name": "creation_timestamp", "ascending": True}]
    search = partial(
        client.search_logged_models, [experiment_id], condition, max_results=PAGE, order_by=order
    )
    return all_pages(search)


def all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    """Yield what a search of MLflow's client finds, which returns it by pages of limited size.

    Args:
        search: takes `page_token`, None for the first page.
    """
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def add_metrics(
    client: Any, model: Any, run_id: str, measured: Iterable[Measurement], time_ms: int
) -> int:
    """Log the measurements that a model does not have yet; return their number.

    Args:
        client: an `MlflowClient`.
        model: the logged model.
        run_id: the run that the metrics are logged to.
        measured: the measurements.
        time_ms: when, in Unix milliseconds.
    """
    from mlflow.entities import Metric

    newest = sorted(model.metrics or [], key=lambda metric: metric.timestamp)
    known = {(m.key, m.dataset_name, m.dataset_digest): m.value for m in newest}
    metrics = []
    for item in measured:
        place = item.name, item.dataset, item.digest[:DIGEST_LENGTH]
        if known.get(place) != item.value:
            metrics.append(
                Metric(item.name, item.value, time_ms, 0, model.model_id, place[1], place[2])
            )
    if metrics:
        client.log_batch(run_id, metrics=metrics)
    return len(metrics)


def link_version(client: Any, model_id: str, name: str, version: str) -> None:
    """Show a registered version on its logged model's page; MLflow's server does so itself."""
    tag = "mlflow.modelVersions"
    known = json.loads(client.get_logged_model(model_id).tags.get(tag, "[]"))
    entry = {"name": name, "version": version}
    if entry not in known:
        client.set_logged_model_tags(model_id, {tag: json.dumps([*known, entry])})


def upload(client: Any, model_id: str, folder: Path) -> None:
    """Upload a package to a logged model, unless a complete package is there."""
    if client.get_logged_model(model_id).tags.get(COMPLETE) == "true":
        return
    client.log_model_artifacts(model_id, str(folder))
    client.finalize_logged_model(model_id, "READY")
    client.set_logged_model_tags(model_id, {COMPLETE: "true"})
