"""Measurements of Pictura against its peers: `python -m benchmarks --list`."""
