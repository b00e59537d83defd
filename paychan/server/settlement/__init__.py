"""Getting paid on the chain: each channel's settlement (`settling`), which are due (`settler`), what the chain does meanwhile."""
