"""An importance: how large an entry of B is beside the others of its row."""

from lori_core import Calibrated, importance


@importance(
    name="relative",
    label="relative",
    about="|B| divided by the mean of |B| over its row",
    gradient=None,  # "mean" or "mean_square" fills at.gradient from the training examples
)
def relative(at: Calibrated):
    """Return scores that are not negative, [d_out, rank], by module; the largest are kept."""
    scores = {}
    for name in at.shapes:
        size = at.B[name].abs()
        scores[name] = size / size.mean(dim=1, keepdim=True).clamp_min(1e-12)
    return scores
