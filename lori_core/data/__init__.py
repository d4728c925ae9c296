"""Examples: where they come from, how they are rendered and batched."""
