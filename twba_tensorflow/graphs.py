"""The network's two graphs, by the names that --graph knows: modules with build() and session_config().

They have the same 596 variables, so that a run, or an evaluation of it, can change from one to the other.
"""
from twba_tensorflow import fast_network, published_network

GRAPHS = {"fast": fast_network, "published": published_network}
