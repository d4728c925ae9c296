"""From an artifact back to its data: what it was made from, and whether it still is that."""
