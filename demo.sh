#!/bin/sh
# Train TWBA-Net on scikit-learn's handwritten digits (no download), stop, resume, evaluate and count spikes.
# $PYTHON is the interpreter, by default python; the run's folder is runs/demo.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python}

rm -rf runs/demo
"$PYTHON" TWBA/cifar10_twba_example.py --dataset digits --output runs/demo --epochs 3
"$PYTHON" TWBA/cifar10_twba_example.py --dataset digits --output runs/demo --resume --epochs 6
"$PYTHON" TWBA/cifar10_twba_spikes.py --checkpoint runs/demo --json runs/demo/spikes.json
