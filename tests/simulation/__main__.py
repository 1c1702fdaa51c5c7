"""Run seeds by hand: `python -m tests.simulation SEED [--trace]`, or `python -m tests.simulation FIRST..LAST`.

With `--world kafka` for the world of several processes.
"""

import argparse
import sys
import time
from collections import Counter
from contextlib import nullcontext

from tests.simulation.worlds import PLANTED, WORLDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="a seed, or FIRST..LAST")
    parser.add_argument("--world", choices=WORLDS, default="embedded")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--mutant", help="a bug to be put in, one of the world's own")
    parser.add_argument("--until-found", action="store_true", help="stop at the first violation")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("..")
    seeds = [first] if not last else [str(seed) for seed in range(int(first), int(last) + 1)]
    begun, totals, failed = time.perf_counter(), Counter[str](), 0
    for seed in seeds:
        with PLANTED[options.world][options.mutant]() if options.mutant else nullcontext():
            result = WORLDS[options.world](seed).run()
        totals.update(result.facts)
        if options.trace:
            print("\n".join(result.trace))
        for violation in result.violations[:5]:
            print(f"seed {seed}: {violation.rule}: {violation.text}", flush=True)
        failed += bool(result.violations)
        if failed and options.until_found:
            break
    print(", ".join(f"{count} {name}" for name, count in totals.items()))
    print(f"{len(seeds)} runs, {failed} with violations, {time.perf_counter() - begun:.1f} s")
    return 1 if failed else 0


sys.exit(main())
