"""LoRI in the form of PEFT's method comparison (MetaMathQA): same data, recipe and result file."""
