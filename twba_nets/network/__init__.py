"""The definition of a network: its architecture and its quantisers."""
