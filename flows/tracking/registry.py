"""Adapters and merged adapters in MLflow's model registry; the aliases `champion` and `previous`.

A promotion first tags the new version with the number of the current champion, then moves the alias
`champion` in one call. So a process that dies at any moment leaves one complete champion, and the
alias `previous` can be restored from the tag.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.environment import quiet_environment
from flows.tracking import logged_models
from flows.tracking.logged_models import COMPLETE, KEY, MD5
from flows.tracking.mlflow_errors import clear_errors
from flows.tracking.mlflow_store import Store, experiment_id, prepare_store, sqlite_file, store_of
from flows.tracking.registry_lock import claimed
from flows.versioning.objects import hash_on_disk
from lori_core.core.errors import InputError, LoriError, nearest
from lori_core.core.redaction import redact, redacted

CHAMPION, PREVIOUS = "champion", "previous"
#: A tag of a model version.
EVALUATION = "lori.evaluation"
#: The settings of that evaluation as JSON: they may change while the artifact stays the same.
SETTINGS = "lori.evaluation_settings"
#: The MD5s of the code that scored it, as JSON.
SCORING_CODE = "lori.scoring_code"
BEFORE, ROLLED_BACK = "lori.previous", "lori.rolled_back"


class ChampionChangedError(LoriError):
    """Another version became champion since the gate's decision; run the gate again."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `source` is MLflow's URI of its files."""

    name: str
    number: str
    tags: Mapping[str, str]
    source: str
    run_id: str | None

    def holds(self, tags: Mapping[str, str]) -> bool:
        """Return whether its artifact has the content key and MD5 of these tags."""
        return bool(tags.get(KEY)) and all(self.tags.get(n) == tags.get(n) for n in (KEY, MD5))

    def __str__(self) -> str:
        """Return `name version 3`."""
        return f"{self.name} version {self.number}"


class Registry:
    """The registry of one MLflow store.

    Args:
        workspace: the workspace whose settings name the store.
        store: a store to use instead.
        make: whether to create a missing local store; False for reading.

    Raises:
        InputError: the local store is missing and `make` is false.
    """

    def __init__(self, workspace: Path, store: Store | None = None, *, make: bool = True) -> None:
        from flows.tracking.sending import read_params

        quiet_environment()
        self.workspace = workspace
        self.store = store or store_of(workspace, read_params(workspace))
        database = sqlite_file(self.store.uri)
        if not make and database is not None and not database.exists():
            raise InputError(
                f"{database}: no such file: nothing is recorded or registered yet (registered: "
                "none yet: lori run, then lori register, or lori gate)"
            )
        with clear_errors(self.store.uri):
            prepare_store(self.store)
            import mlflow
            from mlflow import MlflowClient

            # MLflow resolves `models:/` URIs with the global URIs, not with the client's.
            mlflow.set_tracking_uri(self.store.uri)
            mlflow.set_registry_uri(self.store.uri)
            self.client = MlflowClient(self.store.uri, self.store.uri)

    def experiment_id(self) -> str:
        """Return the id of the store's experiment, which is created if it is missing."""
        with clear_errors(self.store.uri):
            return experiment_id(self.client, self.store)

    def names(self) -> list[str]:
        """Return the registered models' names."""
        with clear_errors(self.store.uri):
            found = logged_models.all_pages(self.client.search_registered_models)
            return [model.name for model in found]

    def at(self, name: str, alias: str) -> Version | None:
        """Return the version that an alias points to; None if there is none."""
        from mlflow.exceptions import MlflowException

        with clear_errors(self.store.uri):
            try:
                version = self.client.get_model_version_by_alias(name, alias)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
        return _version(version)

    def version(self, name: str, number: str) -> Version:
        """Return a version by number or alias.

        Raises:
            InputError: there is no such model or version; the message suggests the nearest name.
        """
        from mlflow.exceptions import MlflowException

        names = self.names()
        if name not in names:
            known = ", ".join(sorted(names)[:10]) or "none yet: lori register, or lori gate"
            raise InputError(f"{name}: no such model{nearest(name, names)} (registered: {known})")
        with clear_errors(self.store.uri):
            try:
                if number.isdigit():
                    return _version(self.client.get_model_version(name, number))
                return _version(self.client.get_model_version_by_alias(name, number))
            except MlflowException:
                model = self.client.get_registered_model(name)
                known = ", ".join(sorted(model.aliases or {})) or "no alias"
                raise InputError(
                    f"{name}: no version or alias {number!r}{nearest(number, model.aliases or {})} "
                    f"(aliases: {known})"
                ) from None

    def add(
        self,
        name: str,
        folder: Path,
        tags: Mapping[str, str],
        run_id: str | None,
        about: str = "",
        model: Callable[[], str] | None = None,
    ) -> Version:
        """Register a folder that `flows.serving.packaging` wrote; return the complete version.

        If a complete version with the same content key and bytes exists, it is returned instead.

        Args:
            name: the registered model.
            folder: the folder to upload.
            tags: the version's tags.
            run_id: the MLflow run that made the artifact; None if there is none.
            about: the version's description.
            model: returns the id of the adapter's logged model, which the version points to; None
                to create one. Its files are uploaded once, also for several registered models.

        Raises:
            LoriError: the registry refuses.
        """
        tags, about = redacted(tags), redact(about)
        with clear_errors(self.store.uri):
            known = self.registered(name, tags)
            if known is not None:
                return self.evaluated(known, tags)
            self._make_model(name)
            model_id = model() if model else self._logged_model(name, tags, run_id)
            logged_models.upload(self.client, model_id, folder)
            created = self.client.create_model_version(
                name,
                f"models:/{model_id}",
                run_id,
                dict(tags),
                description=about,
                model_id=model_id,
            )
            logged_models.link_version(self.client, model_id, name, str(created.version))
            self.client.set_model_version_tag(name, created.version, COMPLETE, "true")
            return _version(self.client.get_model_version(name, created.version))

    def _logged_model(self, name: str, tags: Mapping[str, str], run_id: str | None) -> str:
        experiment = self.experiment_id()
        return logged_models.create(self.client, experiment, name, tags, run_id, {}, "lori-adapter")

    def registered(self, name: str, tags: Mapping[str, str]) -> Version | None:
        """Return the newest complete version with the content key and bytes of these tags."""
        wanted = f"name = '{name}' and tags.`{KEY}` = '{tags.get(KEY, '')}'"
        with clear_errors(self.store.uri):
            versions = [_version(found) for found in self.client.search_model_versions(wanted)]
        complete = [v for v in versions if v.tags.get(COMPLETE) == "true" and v.holds(tags)]
        return max(complete, key=lambda v: int(v.number)) if complete else None

    def evaluated(self, version: Version, tags: Mapping[str, str]) -> Version:
        """Update a version's tags to the newest evaluation of its artifact; return the version."""
        tags = redacted(tags)
        newer = {n: tags[n] for n in (EVALUATION, SETTINGS, SCORING_CODE) if n in tags}
        newer = {n: value for n, value in newer.items() if version.tags.get(n) != value}
        with clear_errors(self.store.uri):
            for name, value in newer.items():
                self._tag(version, name, value)
        return self.version(version.name, version.number) if newer else version

    def _make_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def promote(self, version: Version, judged_against: Version | None) -> None:
        """Make a version champion in one step; the alias `previous` moves to the old champion.

        The version loses the tag of an earlier rollback.

        Args:
            version: the candidate.
            judged_against: the champion that the gate compared it with; None if there was none.

        Raises:
            ChampionChangedError: the champion is no longer `judged_against`.
            LoriError: the version is not complete, or the registry refuses.
        """
        with clear_errors(self.store.uri), claimed(self.client, version.name):
            current = self.at(version.name, CHAMPION)
            if _number(current) == version.number:
                self._set_previous(version)
                return
            if _number(current) != _number(judged_against):
                raise ChampionChangedError(
                    f"{version}: was judged against {_label(judged_against)}, but "
                    f"{_label(current)} is champion now; run lori gate again"
                )
            fresh = self.version(version.name, version.number)
            if fresh.tags.get(COMPLETE) != "true":
                raise LoriError(f"{version}: not complete in the registry; register it again")
            if current is not None or BEFORE in fresh.tags:
                self._tag(fresh, BEFORE, _number(current))
            self.client.set_registered_model_alias(version.name, CHAMPION, version.number)
            self._set_previous(self.version(version.name, version.number))
            if ROLLED_BACK in fresh.tags:
                self.client.delete_model_version_tag(version.name, version.number, ROLLED_BACK)

    def roll_back(self, name: str) -> tuple[Version, Version]:
        """Make the previous champion champion again; return the demoted version and the new one.

        Raises:
            InputError: there is no champion, or none before it.
        """
        self.version(name, CHAMPION)  # refuses an unknown model or a missing champion
        with clear_errors(self.store.uri), claimed(self.client, name):
            current = self.version(name, CHAMPION)
            before = current.tags.get(BEFORE, "")
            if not before:
                raise InputError(f"{current}: is the first champion; there is none before it")
            target = self.version(name, before)
            self._tag(current, ROLLED_BACK, "true")
            self.client.set_registered_model_alias(name, CHAMPION, target.number)
            self._set_previous(target)
            return current, target

    def _set_previous(self, champion: Version) -> None:
        """Set the alias `previous` by the champion's tag, also after a process died in between."""
        before = champion.tags.get(BEFORE, "")
        if before:
            self.client.set_registered_model_alias(champion.name, PREVIOUS, before)
        else:
            self.client.delete_registered_model_alias(champion.name, PREVIOUS)

    def _tag(self, version: Version, name: str, value: str) -> None:
        self.client.set_model_version_tag(version.name, version.number, name, value)

    def download(self, version: Version, inside: str, target: Path) -> Path:
        """Download a file or folder of a version's artifact; return its local path.

        Args:
            version: the version.
            inside: the path inside the artifact; empty for all of it.
            target: the folder to download to.
        """
        from mlflow.artifacts import download_artifacts

        uri = f"models:/{version.name}/{version.number}/{inside}".rstrip("/")
        with clear_errors(self.store.uri):
            path = download_artifacts(
                artifact_uri=uri,
                dst_path=str(target),
                tracking_uri=self.store.uri,
                registry_uri=self.store.uri,
            )
        return Path(path)

    def verdicts(self, version: Version, target: Path, md5: str) -> Path | None:
        """Download the verdicts that a gate's run saved for a version.

        Args:
            version: the judged version.
            target: the folder to download to.
            md5: DVC's hash of the verdicts; other or edited verdicts are skipped.

        Returns:
            The folder of the verdicts; None if no run has them.
        """
        from mlflow.artifacts import download_artifacts

        key = version.tags.get(KEY, "")
        wanted = f"tags.`lori.stage` = 'gate' and tags.`{KEY}` = '{key}'"
        with clear_errors(self.store.uri):
            for run in self.client.search_runs([self.experiment_id()], wanted):
                if any(f.path == "evaluation" for f in self.client.list_artifacts(run.info.run_id)):
                    uri = f"runs:/{run.info.run_id}/evaluation"
                    path = download_artifacts(
                        artifact_uri=uri,
                        dst_path=str(target / run.info.run_id),
                        tracking_uri=self.store.uri,
                    )
                    if hash_on_disk(Path(path)) == md5:
                        return Path(path)
        return None


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a temporary folder, which is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="lori-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _version(found: Any) -> Version:
    return Version(
        found.name, str(found.version), dict(found.tags or {}), found.source, found.run_id or None
    )


def _number(version: Version | None) -> str:
    return version.number if version else ""


def _label(version: Version | None) -> str:
    return str(version) if version else "no champion"
