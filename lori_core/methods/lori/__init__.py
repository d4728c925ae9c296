"""LoRI: both of its methods, calibration, masks taken from it, continual training."""
