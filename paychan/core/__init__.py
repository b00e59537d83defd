"""The pure rules of Bitcoin and of a channel: no socket, clock, file, environment or log. Time comes in as an argument."""
