"""What DVC's stages call, and the `params.yaml` they read."""
