"""Training methods: the interface, the procedure they share, LoRI and the baselines."""
