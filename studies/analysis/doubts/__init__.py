"""The claims and tables of the experiments in `studies.doubts`."""
