"""HTTP in, HTTP out: granian's shared port, each worker's own, other workers', and the routes behind them all."""
