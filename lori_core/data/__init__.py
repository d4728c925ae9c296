"""Examples: their sources, prompt templates, tokenisation and batches."""
