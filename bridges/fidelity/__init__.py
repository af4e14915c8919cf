"""How faithfully mixed forward passes follow the dense model on held-out text."""
