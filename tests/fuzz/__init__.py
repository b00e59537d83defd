"""Fuzzing. A package, so that no directory with an `http` in it comes onto the import path."""
