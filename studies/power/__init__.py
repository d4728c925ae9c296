"""Power plans: the seeds and test items that a claim needs, and what they cost."""
