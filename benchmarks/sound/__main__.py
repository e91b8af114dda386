"""What the sound tier is worth.

    python -m benchmarks.sound attack [--count 1000000] [--models 250] [--family NAME ...]
    python -m benchmarks.sound tightness [--quick]
    python -m benchmarks.sound depth
    python -m benchmarks.sound mutations

Run from the repository's root. `tightness` compares with auto_LiRPA where it can be imported. Exit code 1 if an attack leaves a
bound.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.sound import depth, mutations, peers, tightness
from benchmarks.sound.attack import Attacked, attack
from benchmarks.sound.families import FAMILIES, random_model

FORMS = ("everywhere", "range", "ball:0.1", "ball:0.05@linf", "ball:0.01@linf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("attack", "tightness", "depth", "mutations"))
    parser.add_argument("--count", type=int, default=1_000_000, help="attacked samples, all models together")
    parser.add_argument("--models", type=int, default=250)
    parser.add_argument("--family", choices=sorted(FAMILIES), action="append", help="attack these alone")
    parser.add_argument("--quick", action="store_true", help="the smaller nets")
    given = parser.parse_args()
    if given.what == "depth":
        print(depth.report())
        return 0
    if given.what == "mutations":
        print(mutations.table())
        return 0
    if given.what == "tightness":
        settings = tightness.rows(given.quick)
        tightness.warm()
        print(tightness.table([tightness.measured(*each, with_lirpa=peers.has_lirpa()) for each in settings]))
        return 0
    return _attacks(given.count, given.models, given.family or sorted(FAMILIES))


def _attacks(count: int, models: int, families: Sequence[str]) -> int:
    """Every family in turn, on every form of region in turn."""
    found: dict[str, list[Attacked]] = defaultdict(list)
    for number in range(models):
        cycle, which = divmod(number, len(families))
        seed = cycle * len(FAMILIES) + sorted(FAMILIES).index(families[which])
        family, text = random_model(seed)
        found[family].append(attack(family, text, FORMS[cycle % len(FORMS)], -(-count // models), seed))
    print("| family | models | samples | violations | median of bound / greatest gain found |\n|---|---|---|---|---|")
    for family, attacks in sorted(found.items()):
        ratios = sorted(each.looseness for each in attacks)
        samples, violations = sum(each.samples for each in attacks), sum(len(each.violations) for each in attacks)
        middle = ratios[len(ratios) // 2]
        loose = "unbounded" if math.isinf(middle) else f"{middle:.3g}"
        print(f"| {family} | {len(attacks)} | {samples:,} | {violations} | {loose} |")
    wrong = [violation for attacks in found.values() for each in attacks for violation in each.violations]
    print(f"\n{sum(each.samples for attacks in found.values() for each in attacks):,} samples, {len(wrong)} violations")
    for violation in wrong:
        print(violation)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
