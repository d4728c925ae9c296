"""The command that looks at adapters before they are merged."""
