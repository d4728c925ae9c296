"""`lori doctor`: check whether this machine is ready for a run."""
