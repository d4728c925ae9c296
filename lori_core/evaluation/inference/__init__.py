"""Outputs and log-likelihoods of a model: transformers or vLLM."""
