"""What makes the bundled data sets: deterministic, in this project's own words, one module a set.

`python -m tools.bundled_data` writes the files of `lori_core/data/bundled` (see `write.py`).
"""
