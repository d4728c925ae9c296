"""Training on one GPU compared with other implementations: `python -m benchmarks.gpu`."""
