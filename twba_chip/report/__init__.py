"""The cost of an exported network on a neuromorphic chip."""
