"""TWBA-Nets / BWBA-Nets: what TensorFlow's, PyTorch's and the chip's side share.

network       the network as a table, the quantisers
runs          how it is trained, and what a run leaves in its folder
datasets      CIFAR-10 and 100, digits, data of one's own
system        files, streams, interrupts, progress
command_line  the scripts' flags
"""
__version__ = "2.0.0"
