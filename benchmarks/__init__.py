"""Benchmarks against peers and against the machine's limits; `make bench` runs them all."""
