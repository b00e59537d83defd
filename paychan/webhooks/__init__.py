"""Webhooks: events sent to whoever the operator names, signed, in order, again and again until they are taken."""
