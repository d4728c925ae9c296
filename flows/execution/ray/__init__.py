"""The engine that runs stages on the nodes of a Ray cluster."""
