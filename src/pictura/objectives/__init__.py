"""Objectives: which features, which head, which loss. A task is a model with named, weighted objectives."""
