"""Verdicts beside those of other tools, and against the truth.

python -m benchmarks.verdicts                          four nets in every preset
python -m benchmarks.verdicts truth --count 300        random nets, trained (benchmarks/verdicts/truth.py states the rules)
python -m benchmarks.verdicts truth --count 60 --families rnn gru lstm "pre-norm transformer" "post-norm transformer"
python -m benchmarks.verdicts truth --count 300 --seconds 240
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections import Counter

from benchmarks.verdicts import peers, truth
from benchmarks.verdicts.models import FAMILIES, family_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["peers", "truth"], default="peers")
    parser.add_argument("--count", type=int, default=300, help="nets")
    parser.add_argument("--first", type=int, default=0, help="number of the first net")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), help="count nets of these alone")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of CPU time, at most")
    given = parser.parse_args()
    if given.what == "peers":
        print(peers.table())
        return
    start = time.process_time()
    wanted = set(given.families or FAMILIES)
    numbers = (number for number in itertools.count(given.first) if family_of(random.Random(number)) in wanted)
    found = list(truth.outcomes(itertools.islice(numbers, given.count), given.seconds))
    spent = time.process_time() - start
    print(truth.__doc__)
    print(f"{len(found)} nets in {spent:.0f} s of CPU, so that 300 take {300 * spent / len(found):.0f} s")
    print(", ".join(f"{family} {count}" for family, count in Counter(outcome.model.family for outcome in found).items()))
    confident = [outcome for outcome in found if outcome.confident]
    uneven = [outcome for outcome in found if not outcome.model.is_homogeneous]
    print(f"\nagainst gradients:\n\n{truth.table(found, 'gradients')}")
    print(f"\nagainst gradients, predictions of high confidence:\n\n{truth.table(confident, 'gradients')}")
    print(f"\nagainst movement:\n\n{truth.table(found, 'movement')}")
    print(f"\nagainst movement, without chains of rectifiers:\n\n{truth.table(uneven, 'movement')}")
    print("\n" + "\n".join(truth.mistakes(found)))


if __name__ == "__main__":
    main()
