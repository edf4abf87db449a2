"""Training: the recipe, the optimizer, the loop, and what a run leaves on disk."""
