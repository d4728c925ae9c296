"""The pipeline's stages: parameters and paths in, paths and metrics out. `dvc.yaml` calls these.

A stage writes its metrics last, and they hold only what the inputs decide: no times, no speeds.
Those go to the tracker.
"""
