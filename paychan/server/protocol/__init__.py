"""What a request and an answer say in protocol v1: text to checked values, values to bodies. Nothing here decides anything."""
