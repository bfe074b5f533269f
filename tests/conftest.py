import jax
import jax.random as jr
import jaxtyping
import pytest
from hypothesis import settings

jax.config.update("jax_enable_x64", True)
settings.register_profile("same", derandomize=True)  # the same examples in every run
settings.load_profile("same")


@pytest.fixture(autouse=True, scope="module")
def _programs():
    """Compiled programs go with the module that ran them.

    Each holds some memory maps, of which Linux grants a process 65 530: beyond that XLA segfaults.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jr.key(0)


@pytest.fixture
def untyped():
    """Annotations go unchecked, as for a user: the sentence comes from our own checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
