"""How one batch of circuits is run: the Brian2 network and the exact propagator."""
