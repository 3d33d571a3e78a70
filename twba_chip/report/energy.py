"""Energy of a network's arithmetic for an image: operations times what one takes in 45 nm at 0.9 V.

Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, in pJ: an int8 addition 0.03, an int32 addition
0.1, a float32 addition 0.9; an int8 product 0.2, a float32 product 3.7. The hidden sums are integers, so a synaptic operation is
an int32 addition; the literature on spiking networks takes 0.9. A sum of int8 products outgrows eight bits, so it is int32 too
(an int8 MAC of 0.23 pJ, as often quoted, adds in int8). Left out on both sides: memory, communication, leakage, and what is
off chip.
"""
from typing import Optional

SOPS = (("int32 addition", 0.1), ("float32 addition, as the literature counts", 0.9))
MACS = (("int8 product, int32 addition", 0.3), ("float32 product and addition", 4.6))
PICOJOULE_PER_SOP = SOPS[0][1]


def rows(sops: float, macs: int, given_sop: Optional[float], given_mac: Optional[float]) -> dict:
    """For JSON: {"sops": rows, "macs": rows}, a row for each arithmetic and a last one for a given energy in pJ.

    sops, macs: how many an image takes. A row: arithmetic, in words; picojoule, of one; microjoule, of an image.
    """
    return {name: [{"arithmetic": arithmetic, "picojoule": picojoule, "microjoule": count * picojoule / 1e6}
                   for arithmetic, picojoule in table + ((("as given", given),) if given else ())]
            for name, count, table, given in (("sops", sops, SOPS, given_sop), ("macs", macs, MACS, given_mac))}
