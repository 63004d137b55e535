"""A grid of runs and evaluations, and the table it becomes."""
