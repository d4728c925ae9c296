"""Training methods: their interface, their shared training procedure, LoRI and the baselines."""
