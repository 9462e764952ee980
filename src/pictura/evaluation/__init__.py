"""Evaluators: what a model can do, as (name, value) pairs, and as a report to look at."""
