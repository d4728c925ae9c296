"""Engines, which run stages as processes on this machine or on the nodes of a Ray cluster."""
