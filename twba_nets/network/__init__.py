"""What a network is: its architecture and its quantisers."""
