"""Generating answers, judging them, and saying how sure the score is."""
