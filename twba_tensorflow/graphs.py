"""The network's two graphs by their names in --graph: modules with build() and session_config().

They have the same 596 variables, so a run and its evaluation can switch between them.
"""
from twba_tensorflow import fast_network, published_network

GRAPHS = {"fast": fast_network, "published": published_network}
