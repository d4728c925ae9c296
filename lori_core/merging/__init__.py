"""Merging adapters without the base model, and how much they interfere."""
