"""What a paid call costs here and with others: `python -m bench.peers`."""
