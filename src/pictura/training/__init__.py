"""Training: the loop and its parts (optimisers, schedules, precision, checkpoints, metrics, progress)."""
