"""Merge weights that are learned: their groups and file, branches with weights, and descent."""
