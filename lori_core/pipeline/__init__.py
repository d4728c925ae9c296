"""The stages of the pipeline, which `dvc.yaml` calls, and `params.yaml`, which they read."""
