#!/usr/bin/env python
"""Train a TWBA-Net on CIFAR-10: ternary weights {-1, 0, +1}, binary activations {0, 1}.

The paper reports about 88.19% test accuracy after 600 epochs. Shown so far: 84.10% after 34 epochs (one run, seed 0;
PyTorch 2.13, 223 minutes on one core of an AMD EPYC; model.json and log.csv, beside this). --help lists what can be
changed.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from twba_nets.recipe import paper
from twba_nets.scripts import train

if __name__ == "__main__":
    train(paper("twba"), resume=False)
