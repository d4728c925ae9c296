"""Where examples come from, and how they are pulled into the workspace."""
