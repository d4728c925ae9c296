"""LoRI: the training methods LoRI-D and LoRI-S, masks from calibration, continual training."""
