"""Read and write PEFT's LoRA adapter folders."""
