"""Merge adapters without loading the base model, and measure how much they interfere."""
