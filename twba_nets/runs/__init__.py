"""A training run, and what it leaves behind: recipe, checkpoints, log, card."""
