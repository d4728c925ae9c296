"""The flow that runs the pipeline, and the connections to DVC, Prefect and MLflow."""
