"""The baselines that LoRI is compared with: PEFT's methods and full fine-tuning."""
