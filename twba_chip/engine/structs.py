"""The structs of network.h, field by field. Pointers are addresses; the caller keeps the arrays alive."""
import ctypes
from typing import List, Tuple


def _numbers(names: str) -> List[Tuple[str, type]]:
    return [(name, ctypes.c_int32) for name in names.split()]


def _pointers(names: str) -> List[Tuple[str, type]]:
    return [(name, ctypes.c_void_p) for name in names.split()]


class Geometry(ctypes.Structure):
    _fields_ = _numbers("groups filters kernel channels fan_in size margin positions input_row output_row output_position "
                        "output_image") \
        + _pointers("input_starts output_starts offsets")


class Floats(ctypes.Structure):
    _fields_ = _numbers("winograd number") + _pointers("weights scale offset")


class Words(ctypes.Structure):
    _fields_ = _pointers("plus minus thresholds bytes")


class Planes(ctypes.Structure):
    _fields_ = _numbers("neuron_bytes") + _pointers("input output neurons synapses")


class Stage(ctypes.Structure):
    _fields_ = [("geometry", Geometry), ("ternary", ctypes.c_int32)] + _pointers("input output") + [
        ("floats", Floats), ("words", Words), ("planes", Planes), ("seconds", ctypes.c_double)]


class Classifier(ctypes.Structure):
    _fields_ = _numbers("features classes padded_classes") + _pointers("weights scale offset")


class Network(ctypes.Structure):
    _fields_ = _numbers("network_bytes stages_bytes picture_size channels image_bytes image_size image_margin chunk "
                        "number_of_stages float_stages many part") + [
        ("stages", ctypes.POINTER(Stage)), ("classifier", Classifier)]
