"""What people look at after a run: the table, the pictures, the page."""
