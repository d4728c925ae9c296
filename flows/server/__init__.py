"""Start, guard and stop the servers of Prefect and MLflow and Prefect's worker."""
