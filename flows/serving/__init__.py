"""Gate, compare, package, describe and publish adapters."""
