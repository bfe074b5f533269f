"""Analysis: NumPy arrays in, arrays out, on the states and curves of any run."""

from attnflow.analysis import clusters, plateaus, rates, saddles, transport

__all__ = ["clusters", "plateaus", "rates", "saddles", "transport"]
