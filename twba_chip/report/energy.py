"""Energy of a network's arithmetic per image: operations times the energy of one in 45 nm at 0.9 V.

Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, in pJ: an int8 addition 0.03, an int32 addition
0.1, a float32 addition 0.9; an int8 product 0.2, a float32 product 3.7. The hidden sums are integers, so a synaptic operation is
an int32 addition; the literature on spiking networks uses 0.9. A sum of int8 products exceeds eight bits, so it is int32 too
(an int8 MAC of 0.23 pJ, as often quoted, adds in int8). Both sides exclude memory, communication, leakage and off-chip parts.
"""
from typing import Optional

SOPS = (("int32 addition", 0.1), ("float32 addition, as the literature counts", 0.9))
MACS = (("int8 product, int32 addition", 0.3), ("float32 product and addition", 4.6))
PICOJOULE_PER_SOP = SOPS[0][1]


def rows(sops: float, macs: int, given_sop: Optional[float], given_mac: Optional[float]) -> dict:
    """For JSON: {"sops": rows, "macs": rows}, with a row per arithmetic and a last one for a given energy in pJ.

    sops, macs: operations per image. A row has `arithmetic`, in words; `picojoule`, per operation; `microjoule`, per image.
    """
    return {name: [{"arithmetic": arithmetic, "picojoule": picojoule, "microjoule": count * picojoule / 1e6}
                   for arithmetic, picojoule in table + ((("as given", given),) if given else ())]
            for name, count, table, given in (("sops", sops, SOPS, given_sop), ("macs", macs, MACS, given_mac))}
