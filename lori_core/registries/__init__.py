"""What can be chosen by name: one registry for each kind, and the decorator that adds an entry."""
