"""The load client and what it measures: `python -m bench.load`. Nothing shipped imports this."""
