"""Tasks of lm-evaluation-harness on our models."""
