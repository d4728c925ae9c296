"""Print tables, and examples as the model reads them."""
