"""Which channels are this worker's, how they are read from the store, and how what changes is written before it is answered."""
