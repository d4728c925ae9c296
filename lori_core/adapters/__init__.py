"""Adapters in memory and on disk, and applying them to a base model."""
