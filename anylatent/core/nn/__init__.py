"""Blocks that modalities share: features, norms, attention, conditions, bottlenecks."""
