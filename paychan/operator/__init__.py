"""The operator's API and page, in a process of its own: nothing of it can slow a payment. docs/OPERATOR_API.md is for who uses it."""
