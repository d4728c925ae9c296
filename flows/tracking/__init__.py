"""MLflow: send the rows that stages write, each once; use its model registry."""
