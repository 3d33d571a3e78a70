"""A training run and its files: recipe, checkpoints, log, card."""
