"""What the configurations say: read from TOML (`sections`), kept as frozen objects (`models`), checked (`load`, `dangers`)."""
