"""Load, merge and export adapters, without the base model."""

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
    """Open the folder of a LoRI adapter or of a PEFT adapter (`adapter_config.json`).

    Checksums are verified now; tensors are read on access, so that memory holds one module at a
    time. `adapter.modules` names the adapted linear layers; `adapter.A(name)` is [rank, d_in] and
    `adapter.B(name)` is [d_out, rank], both float32; `adapter.delta(name)` is
    ΔW = scaling · B @ A, [d_out, d_in].

    Args:
        path: the folder.
        verify_projection: whether to draw an A that is given by its key once now, and compare it
            with the recorded SHA-256.

    Raises:
        AdapterError: the folder has no adapter, the adapter is damaged, or it uses a feature of
            PEFT that is not a low-rank update of linear layers (DoRA, IA3, a bias, …), which the
            error names.
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
    majority_sign: Literal["total", "frequency"] | None = None,
    seed: int | None = None,
    threshold: float | None = None,
    safety: Adapter | str | PathLike[str] | None = None,
    base: str | None = None,
    out: str | PathLike[str] | None = None,
    force: bool = False,
) -> Adapter:
    """Merge adapters of one base model into one adapter, without loading that model.

    Ranks, scalings and adapted modules may differ. The result is computed module by module, on
    access or while it is written to `out`.

    Args:
        adapters: at least one, in memory or by path; the order matters for `concat`, `della` and
            the `dare` methods.
        method: a name of `lori_core.registries.merge_method.MERGE_METHODS`.
        weights: one weight for all adapters or one each; `concat` gives ΔW = Σ weight · ΔW_t.
        density: the share of each adapter's entries that pruning methods keep, in (0, 1].
        rank: the rank of the result, for methods that can truncate to one; by default the largest
            rank of the adapters for `*svd`, and the sum of their ranks for `tsv`, `iso_c`,
            `knots_*` and `core_space_*`.
        majority_sign: the `ties` methods and `della` elect a sign by the larger sum (`total`, the
            default) or count (`frequency`).
        seed: the seed of the random drops of the `dare` methods and `della`; by default 0.
        threshold: for `safemerge`, in (0, 1]; by default 0.35.
        safety: for `on_safety`, the safety adapter that the others were trained from, in memory or
            by path.
        base: the base model, for adapters that only name their base, or name none.
        out: a folder to write; only an empty one or an earlier merge is replaced.
        force: whether to replace any other folder, too.

    Returns:
        The merged adapter; read back from `out`, if given.

    Raises:
        InputError: the method is unknown, weights or options do not fit, or `out` may not be
            written.
        AdapterError: the adapters have, or may have, different base models.

    Warns:
        UserWarning: no adapter names its base model, so nothing proves that they have the same.
    """
    from lori_core.adapters import adapter_file, base_choice, output_folder
    from lori_core.merging import merge as merging
    from lori_core.merging.given_options import options_of

    if isinstance(adapters, str | PathLike) or not adapters:
        raise InputError(f"adapters: {adapters!r}; give a list of at least one")
    each = [weights] * len(adapters) if isinstance(weights, int | float) else list(weights)
    given = {"density": density, "rank": rank, "majority_sign": majority_sign, "seed": seed}
    options = options_of(method, given | {"threshold": threshold})
    # No A is drawn here; whoever draws it from the result verifies it.
    inputs = [*adapters, *([] if safety is None else [safety])]
    known, read = base_choice.of_one_base(base, _named(inputs))
    parents = list(known.values())
    start = None if safety is None else parents.pop()
    merged = merging.merge(method, parents, each, options, start)
    if base_choice.none_is_named(known):
        warnings.warn("no adapter names its base model; pass base= to name it", stacklevel=2)
    if out is None:
        return merged
    paths = [*paths_of(inputs), *read]
    with output_folder.claim(Path(out), output_folder.MERGED, paths, force=force) as folder:
        adapter_file.save(merged, folder)
    return load_adapter(out)


def export(
    adapter: Adapter | str | PathLike[str],
    out: str | PathLike[str],
    *,
    serving: Literal["vllm"] | None = None,
    force: bool = False,
) -> Path:
    """Write an adapter as a stock PEFT folder, with bit-identical A and B.

    Args:
        adapter: the adapter, in memory or by path.
        out: a folder to write; only an empty one or an earlier export is replaced.
        serving: a server that supports certain ranks only; the rank is padded with zeros to the
            next of them.
        force: whether to replace any other folder, too.

    Returns:
        `out`, for `PeftModel.from_pretrained(base, out)`.

    Raises:
        InputError: `out` may not be written.
        AdapterError: PEFT's format cannot represent the adapter; the error says why.
    """
    from lori_core.adapters import output_folder
    from lori_core.adapters.peft_format import peft_file

    opened = load_adapter(adapter) if isinstance(adapter, str | PathLike) else adapter
    kind, inputs = output_folder.PEFT, paths_of([adapter])
    with output_folder.claim(Path(out), kind, inputs, force=force) as folder:
        peft_file.export_peft(opened, folder, serving=serving)
    return Path(out)


def paths_of(arguments: Iterable[object]) -> list[Path]:
    """Return the arguments that are paths."""
    return [Path(item) for item in arguments if isinstance(item, str | PathLike)]


def _named(adapters: Sequence[Adapter | str | PathLike[str]]) -> dict[str, Adapter]:
    """Return the adapters by their names in errors: the path, otherwise `adapter N`.

    Copies of base weights are not compared yet (see `base_choice.of_one_base`).
    """
    from lori_core.adapters.peft_format import peft_file

    named: dict[str, Adapter] = {}
    for number, item in enumerate(adapters, start=1):
        if isinstance(item, str | PathLike):
            name = str(item)
            adapter = peft_file.open_adapter(Path(item), verify_projection=False, copies=True)
        else:
            name, adapter = f"adapter {number}", item
        named[name if name not in named else f"{name} ({number})"] = adapter
    return named
