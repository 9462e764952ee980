"""Weights on disk: the model folder, and the layouts of other projects, read and written."""
