"""The packages that people install."""
