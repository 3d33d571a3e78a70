"""What an exported network costs on a neuromorphic chip."""
