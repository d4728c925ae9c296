"""Read files within limits, and write them atomically."""
