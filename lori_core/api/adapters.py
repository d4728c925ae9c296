"""Loading, merging and exporting adapters; none of it needs the base model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lori_core.core.errors import InputError

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter


def load_adapter(path: str | PathLike[str], *, verify_projection: bool = True) -> Adapter:
    """Read an adapter's folder, one of this project's or of PEFT's (`adapter_config.json`).

    The files' checksums are verified at once; tensors are read when they are asked for, so that
    memory holds one module at a time. `adapter.modules` names the adapted linear layers;
    `adapter.A(name)` is [rank, d_in] and `adapter.B(name)` is [d_out, rank], both float32;
    `adapter.delta(name)` is ΔW = scaling · B @ A, [d_out, d_in].

    Args:
        path: the folder.
        verify_projection: whether an A that is drawn from a key is drawn once and compared with
            its recorded SHA-256.

    Raises:
        AdapterError: no adapter is there, it is damaged, or it uses a feature of PEFT that is no
            low-rank update of linear layers (DoRA, IA3, a bias, …), naming which.
    """
    from lori_core.adapters.peft_format import peft_file

    return peft_file.open_adapter(Path(path), verify_projection=verify_projection)


def merge(
    adapters: Sequence[Adapter | str | PathLike[str]],
    *,
    method: str = "concat",
    weights: float | Sequence[float] = 1.0,
    density: float | None = None,
    rank: int | None = None,
    majority_sign: Literal["total", "frequency"] = "total",
    seed: int = 0,
    base: str | None = None,
    out: str | PathLike[str] | None = None,
    force: bool = False,
) -> Adapter:
    """Merge adapters of one base model into one, without loading that model.

    Ranks, scalings and adapted modules may differ. The result is computed module by module when its
    tensors are asked for, or written to `out`.

    Args:
        adapters: at least one, in memory or by path; the order matters to `concat`, `della` and
            the `dare` methods.
        method: a name of `lori_core.merging.merge_methods.METHODS`.
        weights: one for all adapters or one each; ΔW = Σ weight · ΔW_t for `concat`.
        density: the share of each adapter's entries that pruning methods keep, in (0, 1].
        rank: the rank of the result, for the methods that can cut to one; unless given, the largest
            of the adapters' for `*svd`, and their sum for `tsv`, `iso_c`, `knots_*`, `core_space_*`.
        majority_sign: the `ties` methods and `della`: whether the larger sum or the larger count elects a sign.
        seed: the `dare` methods and `della`: which entries are dropped.
        base: the base model, for adapters that only name theirs or name none.
        out: a folder to write; only an empty one or an earlier merge is replaced.
        force: whether another folder is replaced, too.

    Returns:
        The merged adapter, read back from `out` where it was written.

    Raises:
        InputError: an unknown method, weights or options that do not fit, or an `out` that may not
            be written.
        AdapterError: adapters of different base models, or that may be of different ones.

    Warns:
        UserWarning: no adapter says which base model it is for, so nothing proves that they are
            for one.
    """
    from lori_core.adapters import adapter_file, output_folder
    from lori_core.merging import merge as merging
    from lori_core.merging.merge_methods import Options

    if isinstance(adapters, str | PathLike) or not adapters:
        raise InputError(f"adapters: {adapters!r}; give a list of at least one")
    each = [weights] * len(adapters) if isinstance(weights, int | float) else list(weights)
    options = Options(density=density, rank=rank, majority_sign=majority_sign, seed=seed)
    # Keys are only carried along: whoever draws A from the result verifies them.
    named = _named(adapters)
    known, read = _of_one_base(named, base)
    merged = merging.merge(method, list(known.values()), each, options)
    if len(known) > 1 and not any(a.base.known or a.base.name for a in known.values()):
        warnings.warn("no adapter names its base model; pass base= to name it", stacklevel=2)
    if out is None:
        return merged
    inputs = [*paths_of(adapters), *read]
    with output_folder.claim(Path(out), output_folder.MERGED, inputs, force=force) as folder:
        adapter_file.save(merged, folder)
    return load_adapter(out)


def export(
    adapter: Adapter | str | PathLike[str],
    out: str | PathLike[str],
    *,
    serving: Literal["vllm"] | None = None,
    force: bool = False,
) -> Path:
    """Write an adapter as a stock PEFT folder, with the same A and B bit for bit.

    Args:
        adapter: in memory or by path.
        out: a folder to write; only an empty one or an earlier export is replaced.
        serving: a server whose ranks are few: the rank is padded with zeros to one it can load.
        force: whether another folder is replaced, too.

    Returns:
        `out`, for `PeftModel.from_pretrained(base, out)`.

    Raises:
        InputError: an `out` that may not be written.
        AdapterError: the adapter has what PEFT's format cannot say, naming it.
    """
    from lori_core.adapters import output_folder
    from lori_core.adapters.peft_format import peft_file

    opened = load_adapter(adapter) if isinstance(adapter, str | PathLike) else adapter
    kind, inputs = output_folder.PEFT, paths_of([adapter])
    with output_folder.claim(Path(out), kind, inputs, force=force) as folder:
        peft_file.export_peft(opened, folder, serving=serving)
    return Path(out)


def paths_of(given: Iterable[object]) -> list[Path]:
    """Return the paths among what was given."""
    return [Path(one) for one in given if isinstance(one, str | PathLike)]


def _named(adapters: Sequence[Adapter | str | PathLike[str]]) -> dict[str, Adapter]:
    """Return the adapters by what errors call them: their path, else their place."""
    named: dict[str, Adapter] = {}
    for number, one in enumerate(adapters, start=1):
        if isinstance(one, str | PathLike):
            name, adapter = str(one), load_adapter(one, verify_projection=False)
        else:
            name, adapter = f"adapter {number}", one
        named[name if name not in named else f"{name} ({number})"] = adapter
    return named


def _of_one_base(
    adapters: dict[str, Adapter], base: str | None
) -> tuple[dict[str, Adapter], list[Path]]:
    """Return adapters of one base model, and the folders that were read to tell."""
    from lori_core.adapters import base_choice
    from lori_core.adapters.adapter import check_one_base

    if base is None:
        check_one_base(adapters)
        return adapters, []
    chosen = base_choice.chosen(base, adapters)
    return chosen.of(adapters), [chosen.folder]
