"""Training: the loop, its stages, what they learn from and how."""
