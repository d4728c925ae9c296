"""LoRI: low-rank adapters with reduced interference (the method; no engine is imported here)."""

__version__ = "0.1.0"
