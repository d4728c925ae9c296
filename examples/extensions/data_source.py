"""A data source: sums of two numbers, made from a seed."""

import random

from lori_core import Example, data_source


@data_source(
    name="sums",
    label="sums",
    about="additions of two numbers below 100",
    scorer="number",
    license="CC0-1.0",
)
def sums(sizes: dict[str, int], seed: int):
    """Yield each example with its split; the same sizes and seed give the same examples."""
    draw = random.Random(seed)
    pairs = draw.sample([(a, b) for a in range(100) for b in range(100)], sum(sizes.values()))
    splits = [split for split, size in sizes.items() for _ in range(size)]
    for split, (a, b) in zip(splits, pairs, strict=True):
        yield split, Example(f"What is {a} + {b}?", str(a + b), "number", str(a + b))
