"""Task data made by this project: deterministic, in its own words, one module a task."""
