"""What happened here, as one ordered stream: what an event says, what an endpoint is told, how both are asked for."""
