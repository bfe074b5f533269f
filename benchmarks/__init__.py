"""Speed and memory against published tools, all on two threads: `python -m benchmarks [name]`.

Thread counts are set here because numerical libraries read them when they are loaded.
"""

import os

THREADS = 2

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(THREADS)
os.environ["JAX_ENABLE_X64"] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
