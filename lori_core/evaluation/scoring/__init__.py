"""Scorers: from an output and its example to a verdict."""
