"""Analyse the experiments' rows: factors, differences, claims and their verdicts."""
