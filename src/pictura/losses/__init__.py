"""Losses as pure functions; each is tested against a naive loop."""
