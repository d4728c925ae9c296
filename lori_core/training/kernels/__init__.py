"""Faster forward and backward passes, with the same results as the plain ones."""
