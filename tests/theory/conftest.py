import numpy as np
import pytest


@pytest.fixture
def printed():
    """Assert that numbers equal printed ones to half a unit of the last printed digit."""

    def check(got, text):
        for value, number in zip(np.atleast_1d(got).ravel(), text.split(), strict=True):
            mantissa, _, exponent = number.partition("e")
            decimals = len(mantissa.partition(".")[2])
            half = 0.5 * 10.0 ** (int(exponent or 0) - decimals)
            assert abs(value - float(number)) <= half * (1 + 1e-9), f"{value!r} is not {number}"

    return check
