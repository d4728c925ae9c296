"""PEFT's adapter folders, read and written without a model."""
