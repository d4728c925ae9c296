"""Base models: files, identity, loading, linear layers, and PEFT's names of modules."""
