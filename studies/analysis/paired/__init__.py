"""Differences paired by seed and item, and their intervals."""
