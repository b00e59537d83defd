"""Where funding is seen and settlements are sent: one interface (`base.py`), one module for each source of truth."""
