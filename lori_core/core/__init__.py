"""Shared parts of the library: errors, files, processes, redaction, progress, tracking."""
