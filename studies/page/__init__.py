"""From the experiments' rows to tables, figures and a page, beside the paper's own numbers."""
