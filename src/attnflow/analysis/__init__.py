"""Analysis: NumPy arrays in, arrays out, on the states and curves of any run."""

from attnflow.analysis import branches, clusters, gibbs, plateaus, rates, saddles, transport

__all__ = ["branches", "clusters", "gibbs", "plateaus", "rates", "saddles", "transport"]
