"""The store process: keeps every channel's terms and state, durably, and decides which worker may write which."""
