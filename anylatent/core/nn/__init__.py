"""Blocks that modalities share: noise features, normalisation, attention, conditions, bottlenecks."""
