"""Infinitely many tokens: densities on the sphere as flows that `solve` integrates."""

from attnflow.meanfield import circle, gegenbauer, sphere, zonal
from attnflow.meanfield.circle import Circle
from attnflow.meanfield.flow import MeanField
from attnflow.meanfield.sphere import Sphere
from attnflow.meanfield.zonal import Zonal

__all__ = ["Circle", "MeanField", "Sphere", "Zonal", "circle", "gegenbauer", "sphere", "zonal"]
