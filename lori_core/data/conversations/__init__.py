"""Conversations as training rows: encode them, check them, show which tokens are learned."""
