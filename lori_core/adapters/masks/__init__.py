"""Masks over the entries of B: selection, structure, encoding, files."""
