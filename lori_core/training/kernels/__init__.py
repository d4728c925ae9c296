"""Faster forward and backward passes with the results of the standard ones."""
