"""Choose the base model that a command applies adapters to, and check that they belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lori_core.adapters import attach
from lori_core.adapters.adapter import NAME_BASE, Adapter, check_base, check_one_base
from lori_core.adapters.peft_format import base_copies
from lori_core.config import ModelSection
from lori_core.core.errors import AdapterError, InputError, ModelError
from lori_core.core.files.tensor_file import DTYPE_NAMES
from lori_core.models import base_files, base_model, base_tensors
from lori_core.models.base_identity import HUB_ID, VOUCHED, BaseIdentity, Match, match, same_name


@dataclass(frozen=True)
class Base:
    """A base model whose files are on this machine.

    Attributes:
        section: the name, revision and dtype it is loaded with.
        folder: the folder of its files.
        identity: its name and the digests of its content.
        vouched: whether the user named it with `--base`.
    """

    section: ModelSection
    folder: Path
    identity: BaseIdentity
    vouched: bool

    def of(self, adapters: Mapping[str, Adapter]) -> dict[str, Adapter]:
        """Check that adapters belong to this base, and return them.

        If the user named the base with `--base`, an adapter that records only its base's name gets
        this base's identity and is marked as vouched for.

        Raises:
            AdapterError: an adapter belongs, or may belong, to another base (see `check_base`), or
                this base lacks one of its modules or has it in another size.
        """
        for name, adapter in adapters.items():
            check_base(adapter, self.identity, name, vouched=self.vouched)
        adapters = {n: without_copies(a, n, self.folder) for n, a in adapters.items()}
        if all(adapter.base.known for adapter in adapters.values()):
            return dict(adapters)
        outline = base_model.outline(self.folder)
        return {name: self._checked(adapter, name, outline) for name, adapter in adapters.items()}

    def _checked(self, adapter: Adapter, name: str, outline: Any) -> Adapter:
        if adapter.base.known:
            return adapter
        attach.check(outline, adapter, name)
        if not self.vouched:
            return adapter
        return replace(adapter, base=self.identity, info=adapter.info | {VOUCHED: True})


def choose(
    option: str | None, adapters: Mapping[str, Adapter], own: ModelSection | None = None
) -> Base:
    """Prepare the base model that `--base` names or, without `--base`, that the adapters name.

    Args:
        option: the value of `--base`; None if it was not given.
        adapters: the adapters to apply, by name.
        own: the model of params.yaml; if it is the same model, its settings are used.

    Raises:
        AdapterError: neither `--base` nor an adapter names a base.
        ModelError: the base cannot be used.
    """
    if option is not None:
        base = prepare(from_option(option, adapters), "--base")
        return replace(base, section=own) if own and stands_for(own, base.identity) else base
    if own and stands_for(own, _best_identity(adapters)):
        return prepare(own)
    return prepare(of_adapters(adapters))


def of_one_base(
    option: str | None, adapters: Mapping[str, Adapter]
) -> tuple[dict[str, Adapter], list[Path]]:
    """Check that adapters have one base model, as far as they record it.

    Args:
        option: the base model that the user named; None for the adapters' own, which is not read.
        adapters: the adapters by name.

    Returns:
        The adapters, and the folders that were read: the base model's, if it was named.

    Raises:
        AdapterError: the adapters have several base models, or do not fit the one that was named.
    """
    if option is None:
        for name, adapter in adapters.items():
            base_copies.refuse(adapter, name)
        check_one_base(adapters)
        return dict(adapters), []
    base = choose(option, adapters)
    return base.of(adapters), [base.folder]


def none_is_named(adapters: Mapping[str, Adapter]) -> bool:
    """Say whether there are several adapters, none of which records its base model."""
    return len(adapters) > 1 and not any(a.base.known or a.base.name for a in adapters.values())


def from_option(option: str, adapters: Mapping[str, Adapter]) -> ModelSection:
    """Return the model that `--base` names: a folder, `pypi:…`, `OWNER/NAME`, `OWNER/NAME@COMMIT`.

    Without a commit, the revision is the one that an adapter of this base records.
    """
    name, _, revision = option.rpartition("@")
    if HUB_ID.fullmatch(name) and not any(Path(path).is_dir() for path in (option, name)):
        return ModelSection(name_or_path=name, revision=revision)
    named = BaseIdentity(option, "", "", "")
    revisions = (a.base.revision for a in adapters.values() if same_name(a.base, named))
    return ModelSection(name_or_path=option, revision=next(filter(None, revisions), None))


def of_adapters(adapters: Mapping[str, Adapter]) -> ModelSection:
    """Return the base model that adapters name.

    Raises:
        AdapterError: no adapter names a base.
    """
    base = _best_identity(adapters)
    if not base.name:
        raise AdapterError(
            f"{next(iter(adapters))}: does not say which base model it is for; {NAME_BASE}"
        )
    return ModelSection(name_or_path=base.name, revision=base.revision or None)


def _best_identity(adapters: Mapping[str, Adapter]) -> BaseIdentity:
    """Return the most informative base identity: with digests and name, else with a name."""
    bases = [adapter.base for adapter in adapters.values()]
    return max(bases, key=lambda base: (base.known and bool(base.name), bool(base.name)))


def prepare(section: ModelSection, argument: str | None = None) -> Base:
    """Download or convert a base model if necessary, and identify it.

    Args:
        section: the model.
        argument: the argument of the command with which the user named it, such as `--base`.

    Raises:
        ModelError: the model cannot be used; the message begins with the argument or says what to
            name instead.
    """
    vouched = argument is not None
    try:
        folder = base_model.prepare(section)
        return Base(section, folder, base_model.identity(section, folder), vouched)
    except InputError as error:
        text = str(error)
        for key in ("model.name_or_path: ", "model.revision: "):
            text = text.removeprefix(key)
        if vouched:
            raise ModelError(f"{argument}: {text}") from None
        raise ModelError(
            f"the base model {section.name_or_path!r}: {text}; {NAME_BASE} (a hub model as "
            "OWNER/NAME@COMMIT)"
        ) from None


def stands_for(section: ModelSection, base: BaseIdentity) -> bool:
    """Return whether the model of params.yaml is the one that an identity describes.

    True if the names are equal or, for a model that needs no download, the contents are.
    """
    if same_name(BaseIdentity(section.name_or_path, section.revision or "", "", ""), base):
        return True
    local = section.name_or_path.startswith(("pypi:", "random:"))
    if not base.known or not (local or Path(section.name_or_path).expanduser().is_dir()):
        return False
    try:
        return (
            match(base_model.identity(section, base_model.prepare(section)), base) is Match.PROVED
        )
    except InputError:
        return False


def without_copies(adapter: Adapter, where: str, folder: Path) -> Adapter:
    """Compare an adapter's copies with the base's weights; return the adapter without them.

    Args:
        adapter: the adapter.
        where: its name in error messages.
        folder: the folder of the base model.

    Raises:
        AdapterError: a copy differs from the base's weight, or the base has no such weight.
    """
    copies = adapter.info.get(base_copies.COPIES)
    if not copies:
        return adapter
    files = [base_files.opened(path) for path in base_files.weight_files(folder)]
    for module, fact in copies.items():
        found = base_tensors.stored_weight(folder, files, module)
        dtype = DTYPE_NAMES.get(fact["dtype"])
        if (
            found is None
            or dtype is None
            or base_copies.fact_of(found[0][found[1]].to(dtype)) != fact
        ):
            raise AdapterError(
                f"{where}: holds another weight of {module} than {folder}: the adapter belongs to "
                "another base, or was trained with that weight, which is no low-rank update"
            )
    return replace(adapter, info={n: v for n, v in adapter.info.items() if n != base_copies.COPIES})
