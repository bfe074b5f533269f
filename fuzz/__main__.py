"""Fuzz the library and its command line: how many cases of each target ended how, and every finding."""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from fuzz.report import report, table
from fuzz.targets import TARGETS
from fuzz.workers import CHUNK, Chunk, run


def main() -> int:
    """Run the cases; exit code 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="number of cases, about")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other cases")
    parser.add_argument("--only", default="", help="targets whose name holds this text")
    parser.add_argument("--without", default="-", help="no target whose name holds this text")
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that a case may take")
    parser.add_argument("--json", default="", metavar="FILE", help="write the report there as JSON")
    options = parser.parse_args()
    chosen = {
        name: target
        for name, target in TARGETS.items()
        if options.only in name and options.without not in name
    }
    if not chosen or options.cases < 1:
        parser.error(f"no cases: the targets are {', '.join(TARGETS)}")
    started, outcomes, kinds = time.monotonic(), [], Counter()

    def tell(outcome):
        outcomes.append(outcome)
        kinds[outcome.kind] += 1
        if outcome.kind == "finding":
            print(f"\r{outcome.call}\n    {outcome.place}: {outcome.text}", file=sys.stderr)
        elif len(outcomes) % 100 == 0:
            print(f"\r{len(outcomes)} cases, {dict(kinds)}", end="", file=sys.stderr, flush=True)

    run(
        chunks(chosen, options.cases, options.seed),
        workers=options.workers,
        limit=options.limit,
        tell=tell,
    )
    result = report(outcomes, seconds=time.monotonic() - started, seed=options.seed)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    return 1 if result["findings"] else 0


def chunks(targets, cases: int, seed: int) -> list[Chunk]:
    """Cases of every target in proportion to its weight, cut into chunks."""
    total = sum(target.weight for target in targets.values())
    cut = []
    for name, target in targets.items():
        wanted = max(1, round(cases * target.weight / total))
        sizes = [min(CHUNK, wanted - start) for start in range(0, wanted, CHUNK)]
        cut += [Chunk(name, size, seed * 1_000 + k) for k, size in enumerate(sizes)]
    return cut


if __name__ == "__main__":
    sys.exit(main())
