"""The methods that LoRI is compared with, through PEFT."""
