"""DVC's own files: reading, checking and writing them."""
