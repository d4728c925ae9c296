"""Start, limit, fork and stop processes."""
