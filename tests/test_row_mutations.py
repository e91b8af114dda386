"""Every bound that a row states is broken on purpose: moved inward by a tenth it is left by an attack, or a reason is given.

`python -m benchmarks.sound mutations` prints the table.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.one_node import ROWS, over
from tests.row_attacks import FACTS, WIDTHS, attacks, caught, shown
from vgcompile.interval import interval, point
from vgcompile.ops import OPS
from vgcompile.ops.op import Case, Op
from vgcompile.ops.standardizing import value_range

# What no attack leaves, and why not.
LOOSE = {
    ("GatherND", "norms above"): "it allows for all its indices to be one and the same, which those of its samples are not",
}
# What no sample shows, and why not; a lower norm of 0 needs no reason.
UNREAD = "a rearrangement is read off what its NumPy reading does to numbers, and it has none"
WITHOUT_READING = (
    *("CenterCropPad", "Compress", "DepthToSpace", "Gather", "GatherElements", "GatherND", "Pad", "ReverseSequence"),
    *("SpaceToDepth", "TopK", "Trilu", "Unique"),
)
UNSHOWN = {
    ("Tile", "norms above"): "how often each element is repeated is not known where inference names the extent",
    ("Transpose", "tangent"): "its samples move the samples' axis away from the front, and there is no map of one sample then",
    ("Split", "tangent"): "a case of the table reads its first output alone, and the map is that of all of them",
    **dict.fromkeys([(name, "tangent") for name in WITHOUT_READING], UNREAD),
}
STATED = [(row, fact) for fact, known in FACTS.items() for row in ROWS if known.stated(row)]


@pytest.mark.parametrize(("row", "fact"), STATED, ids=[f"{row.name}-{fact}" for row, fact in STATED])
def test_a_bound_that_is_too_tight_is_left(row: Op, fact: str) -> None:
    if not shown(row, fact):
        assert fact == "norms below" or (row.name, fact) in UNSHOWN
        return
    assert (row.name, fact) not in UNSHOWN
    if (row.name, fact) in LOOSE:
        pytest.skip(LOOSE[row.name, fact])
    assert caught(row, fact), "no attack leaves it: say in LOOSE why, or tighten it"


def test_reasons_are_of_rows_that_state_something() -> None:
    stated = {(row.name, fact) for row, fact in STATED}
    assert set(LOOSE) | set(UNSHOWN) <= stated
    assert all(OPS[name].numpy is None for (name, _), reason in UNSHOWN.items() if reason == UNREAD)


@over([row for row in ROWS if row.tangent is not None])
def test_jacobians_lie_around_their_maps(row: Op) -> None:
    """Anywhere in a box, not at its middle alone."""
    leaves = FACTS["tangent"].leaves
    assert not any(leaves(attack, 0.0) for attack in attacks(row, 1, WIDTHS[::2]))


# ------------------------------------------------------------------------------------------------ what such attacks have found


def attention(scale: float = 1.0, fill: float = -math.inf, hidden: bool = False) -> Case:
    shape = (1, 1, 2, 1)
    q, k, v = interval(1.0, 1.0), interval(100.0, 100.0), interval(-1.0, 1.0)
    mask = np.array([[[[False, True]]]])
    return Case(
        {"scale": scale, "fill": fill},
        (shape, shape, shape, None, (1, 1, 1, 2) if hidden else None),
        (shape,),
        (q, k, v, None, None),
        (None, None, None, None, mask if hidden else None),
    )


def test_behind_a_filled_score_keys_count_from_zero() -> None:
    """Keys that are all alike change no weight, unless one score is a number of its own: p_1 = sigmoid(scale q k - fill)."""
    norms = OPS["ScaledDotProductAttention"].norms
    assert norms is not None
    assert norms(attention(), 0)[1] == pytest.approx(0.0, abs=1e-9)
    hi = norms(attention(fill=100.0, hidden=True), 0)[1]
    exact = 0.25 * 2.0 * 100.0  # d y / d q = p_1 p_2 (v_1 - v_2) k
    assert exact <= hi <= 2.5 * exact


def test_each_row_has_its_own_deviation() -> None:
    """Of two tokens with deviations of 1 and 100, at a point, both are known as what they are."""
    x = np.array([[1.0, -1.0], [100.0, -100.0]])
    case = Case({"epsilon": 1e-5, "axis": -1}, ((2, 2), (2,)), ((2, 2),), (point(x), point(np.ones(2))), (None, np.ones(2)))
    found = value_range(case, 2.0, centred=True)
    assert found is not None
    assert (found.hi - found.lo).max() < 1e-9
