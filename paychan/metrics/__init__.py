"""What this system counts of itself: shared memory that each process writes alone, and Prometheus reads through a process apart."""
