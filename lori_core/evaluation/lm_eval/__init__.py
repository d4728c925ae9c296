"""Evaluation with the tasks of lm-evaluation-harness."""
