"""Verify that artifacts, code and data agree with what was recorded."""
