"""Registries of the entries that users choose by name, and the decorators that add entries."""
