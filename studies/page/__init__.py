"""The page about the experiments: figures, tables and verdicts beside the paper's numbers."""
