"""Which base model a command puts adapters on, and whether it is theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lori_core.adapters import attach
from lori_core.adapters.adapter import NAME_IT, Adapter, check_base
from lori_core.config import ModelSection
from lori_core.core.errors import AdapterError, InputError, ModelError
from lori_core.models import base_model
from lori_core.models.base_identity import HUB_ID, VOUCHED, BaseIdentity, Match, match, same_name


@dataclass(frozen=True)
class Base:
    """A base model that is at hand.

    Attributes:
        section: how it is named and loaded.
        folder: where its files are.
        identity: what it is.
        vouched: whether the user named it for the adapters, with `--base`.
    """

    section: ModelSection
    folder: Path
    identity: BaseIdentity
    vouched: bool

    def of(self, adapters: Mapping[str, Adapter]) -> dict[str, Adapter]:
        """Return the adapters as this base's; what only names its base is taken at `--base`'s word.

        Raises:
            AdapterError: for one that is, or may be, another base's; see `check_base`. Or whose
                modules this base lacks, or has in another size.
        """
        for name, adapter in adapters.items():
            check_base(adapter, self.identity, name, vouched=self.vouched)
        if all(adapter.base.known for adapter in adapters.values()):
            return dict(adapters)
        outline = base_model.outline(self.folder)
        return {name: self._fitted(adapter, name, outline) for name, adapter in adapters.items()}

    def _fitted(self, adapter: Adapter, name: str, outline: Any) -> Adapter:
        if adapter.base.known:
            return adapter
        attach.check(outline, adapter, name)
        if not self.vouched:
            return adapter
        return replace(adapter, base=self.identity, info=adapter.info | {VOUCHED: True})


def chosen(
    word: str | None, adapters: Mapping[str, Adapter], own: ModelSection | None = None
) -> Base:
    """Bring in the base that `--base` names; without a word the one that the adapters name.

    Args:
        word: the value of `--base`.
        adapters: what it is for.
        own: the model of params.yaml: where it is the same model, it is loaded as it says.

    Raises:
        AdapterError: no base is named.
        ModelError: it cannot be used.
    """
    if word is not None:
        base = at_hand(from_option(word, adapters), vouched=True)
        return replace(base, section=own) if own and stands_for(own, base.identity) else base
    if own and stands_for(own, _said_by(adapters)):
        return at_hand(own)
    return at_hand(of_adapters(adapters))


def from_option(word: str, adapters: Mapping[str, Adapter]) -> ModelSection:
    """Return the base that `--base` names: a folder, `pypi:…`, `OWNER/NAME` or `OWNER/NAME@COMMIT`.

    Without a commit it is the one that an adapter of this base gives.
    """
    name, _, revision = word.rpartition("@")
    if HUB_ID.fullmatch(name) and not any(Path(path).is_dir() for path in (word, name)):
        return ModelSection(name_or_path=name, revision=revision)
    named = BaseIdentity(word, "", "", "")
    given = (a.base.revision for a in adapters.values() if same_name(a.base, named))
    return ModelSection(name_or_path=word, revision=next(filter(None, given), None))


def of_adapters(adapters: Mapping[str, Adapter]) -> ModelSection:
    """Return the base that adapters name.

    Raises:
        AdapterError: none names one.
    """
    base = _said_by(adapters)
    if not base.name:
        raise AdapterError(
            f"{next(iter(adapters))}: does not say which base model it is for; {NAME_IT}"
        )
    return ModelSection(name_or_path=base.name, revision=base.revision or None)


def _said_by(adapters: Mapping[str, Adapter]) -> BaseIdentity:
    """Return what the adapters say of their base; one that knows its content has the first word."""
    bases = [adapter.base for adapter in adapters.values()]
    return max(bases, key=lambda base: (base.known and bool(base.name), bool(base.name)))


def at_hand(section: ModelSection, *, vouched: bool = False) -> Base:
    """Bring a base model in and identify it.

    Raises:
        ModelError: it cannot be used; the error says what to name instead.
    """
    try:
        folder = base_model.prepare(section)
        return Base(section, folder, base_model.identity(section, folder), vouched)
    except InputError as error:
        text = str(error)
        for key in ("model.name_or_path: ", "model.revision: "):
            text = text.removeprefix(key)
        if vouched:
            raise ModelError(f"--base: {text}") from None
        raise ModelError(
            f"the base model {section.name_or_path!r}: {text}; {NAME_IT}, one of the hub as "
            "OWNER/NAME@COMMIT"
        ) from None


def stands_for(section: ModelSection, base: BaseIdentity) -> bool:
    """Say whether the model of params.yaml is the one that an identity means.

    It is if it has its name; and, where it need not be downloaded for that, if it has its content.
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
