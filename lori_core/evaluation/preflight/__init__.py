"""Forecasts of a merge's excess loss, before anything is merged."""
