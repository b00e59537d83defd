"""What the configurations say: read from TOML (`sections`), kept frozen (`models`), checked (`load`, `hosts`, `dangers`)."""
