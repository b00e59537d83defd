"""A payment channel server for Bitcoin. Importing this package costs nothing; import what you need from its modules."""

__version__ = "0.1.0"
