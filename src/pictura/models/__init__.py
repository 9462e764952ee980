"""Architectures, one file each: configuration, module, named sizes."""
