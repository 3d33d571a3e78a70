#!/usr/bin/env python
"""Evaluate a trained BWBA-Net on CIFAR-10 and count its spikes. --help lists the flags."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take a second

from twba_tensorflow.scripts import count_spikes

if __name__ == "__main__":
    count_spikes("bwba")
