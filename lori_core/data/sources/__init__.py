"""The sources of examples, and how `lori pull` reads them into the workspace."""
