"""The exported spiking network, in NumPy and C: what a chip computes, what it costs, and other tools' formats.

spiking_file      the file of an exported network               spiking_network  that network in NumPy
engine            the same, compiled from C                     report           what it costs on a chip, by
export_nir        NIR, for simulators and chips                 synapses, cores, robustness, figures
export_onnx       ONNX

No framework is imported here.
"""
