"""What a power loss may leave of the store's files: recorded, imagined, and opened with the real store."""
