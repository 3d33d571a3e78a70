"""The exported spiking network: its file, its NumPy reference, and the export of a model."""
