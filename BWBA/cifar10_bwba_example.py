#!/usr/bin/env python
"""Train a BWBA-Net on CIFAR-10: binary weights {-1, +1}, binary activations {0, 1}.

The paper reports about 86.50% test accuracy. --help lists the flags.
The network is in twba_tensorflow/published_network.py, the recipe in twba_nets/runs/recipe.py.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take a second

from twba_nets.runs.recipe import paper
from twba_tensorflow.scripts import train

if __name__ == "__main__":
    train(paper("bwba"), resume=False)
