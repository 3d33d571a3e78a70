"""The hidden stages on PAICORE 2.0: tiles, their places on a chip, the frames that configure it, and a model that runs these."""
