"""A merge method: the mean of the adapters' updates instead of their sum."""

from lori_core import Factors, Options, merge_method


def sum_of_ranks(ranks, size, options):
    """Return the rank of A' and B', which has to be known before they are computed."""
    return sum(ranks)


@merge_method(
    name="mean",
    label="Mean",
    about="the mean of the weighted updates; ranks add up",
    needs=(),  # of density, rank, majority_sign and seed: what the result depends on
    rank=sum_of_ranks,
)
def mean(adapters: list[Factors], options: Options, module: str):
    """Return A' [r, d_in] and B' [d_out, r], whose product is the mean of w·s·B @ A."""
    import torch

    A = torch.cat([adapter.A for adapter in adapters])
    B = torch.cat([adapter.B * adapter.factor for adapter in adapters], dim=1)
    return A, B / len(adapters)
