"""The training loop: trainer, loss, several processes, memory."""
