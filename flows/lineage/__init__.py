"""The lineage of an artifact: what it was made from, and whether its files are still the same."""
