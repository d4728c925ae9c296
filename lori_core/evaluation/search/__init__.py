"""Search the weights of a merge on validation examples, under the rules of the gate."""
