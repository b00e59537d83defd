"""The signer process: holds the server's key, and signs settlements for a server that it does not trust."""
