"""Evaluation: generation, scoring with confidence intervals, comparison of models, and the gate."""
