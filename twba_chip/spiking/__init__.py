"""The exported spiking network: its file, its reference in NumPy, and how a model becomes one."""
