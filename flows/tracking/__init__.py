"""MLflow: the rows that stages write, each sent once; its registry of models."""
