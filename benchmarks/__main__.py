"""Run benchmarks by name, or all: table on stdout, numbers in benchmarks/results/<name>.json."""

import argparse
import json
from importlib import import_module
from pathlib import Path

BENCHMARKS = {
    "dense": "benchmarks.dense",
    "dense_attempts": "benchmarks.dense_attempts",
    "fast_sums": "benchmarks.fast_sums",
    "phase_diagram": "benchmarks.phase_diagram",
    "coalescence": "benchmarks.coalescence",
    "clustering": "benchmarks.clustering",
    "layers": "benchmarks.layers",
    "monitor": "benchmarks.monitor",
    "capture": "benchmarks.capture",
}

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], default=[])
for name in parser.parse_args().names or BENCHMARKS:
    result = import_module(BENCHMARKS[name]).main()
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
