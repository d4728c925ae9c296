"""The flow that runs the pipeline, and the adapters to DVC, Prefect and MLflow."""
