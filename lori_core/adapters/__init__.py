"""What an adapter is, in memory and on disk."""
