"""What leaves the process beside its answers: files, whole or not at all; lines that say how far it is."""
