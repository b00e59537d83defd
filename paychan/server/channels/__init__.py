"""What a worker does for the channels of its own shards: open (`opening`), pay (`payments`), close (`life`), look at the chain."""
