"""One training run: trainer, loss, several processes, memory."""
