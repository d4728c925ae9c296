"""The stages of `dvc.yaml`: each reads parameters and files, and writes files and metrics.

A stage writes its metrics file last. The file only has values that the inputs determine; times and
speeds are reported to the tracker.
"""
