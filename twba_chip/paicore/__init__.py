"""The hidden stages on PAICORE 2.0: tiles, their placement, the frames that configure a chip, and a model that runs them."""
