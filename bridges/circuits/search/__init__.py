"""How circuits are searched for: gates, adversarial pruning, greedy pruning, bisection."""
