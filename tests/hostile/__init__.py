"""What others do to us: abuse over the network, dangerous configurations, secrets that must not leak."""
