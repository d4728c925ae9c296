"""Masks over the entries of B: importance scores, selection, structures, coding and files."""
