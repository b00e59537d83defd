"""What sells: any HTTP API behind a price."""
