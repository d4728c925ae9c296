"""Run as many points of the experiments as a time limit allows, several at a time."""
