"""Blocks that are stored without loss: which they are, and what stands in their place."""
