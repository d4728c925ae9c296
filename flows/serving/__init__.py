"""What may be served, and as what: the gate, comparisons, MLflow packages, model cards, a hub."""
