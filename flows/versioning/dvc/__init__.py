"""Read, check and write DVC's own files."""
