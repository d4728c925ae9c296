"""Whether recorded artifacts, code and data are still what they were."""
