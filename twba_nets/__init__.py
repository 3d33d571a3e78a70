"""TWBA-Nets / BWBA-Nets: the code shared by the TensorFlow, PyTorch and chip packages.

network       the network as a table, the quantisers
runs          training recipes, and the files of a run's folder
datasets      CIFAR-10, CIFAR-100, digits, your own data
system        files, streams, interrupts, progress
command_line  flags of the scripts
"""
__version__ = "2.0.0"
