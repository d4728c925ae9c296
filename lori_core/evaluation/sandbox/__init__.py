"""Running generated programs against their tests, isolated from the host."""
