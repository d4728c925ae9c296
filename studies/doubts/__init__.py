"""Experiments that test doubts about LoRI: its frozen A, its orthogonality, its sparsity."""
