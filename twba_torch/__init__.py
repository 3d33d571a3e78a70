"""The network and recipe of twba_nets in PyTorch, for any current GPU (or CPU).

Imports no TensorFlow. What needs no framework (network table, recipe, data, log, npz files) is twba_nets'.
"""
