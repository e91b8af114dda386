"""What a verification found: a check for each node and operand, each asked value end to end, each gradient in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Stage = Literal["node", "end to end", "float32"]
Verdict = Literal["verified", "at a kink", "wrong", "not verified"]
STAGES: tuple[Stage, ...] = ("node", "end to end", "float32")


@dataclass(frozen=True)
class Check:
    """``error`` is relative to the terms that were summed, ``allowed`` what it may be; ``by`` is the operand of a node."""

    stage: Stage
    name: str
    verdict: Verdict
    operator: str = ""
    by: str = ""
    error: float | None = None
    allowed: float | None = None
    reason: str = ""

    @property
    def badness(self) -> float:
        """How near an error is to what is allowed; what is not verified comes after what is."""
        if self.error is None or self.allowed is None:
            return float("inf") if self.verdict == "wrong" else -1.0
        return self.error / self.allowed if self.error == self.error else float("inf")

    def __str__(self) -> str:
        what = f"{self.operator} (node {self.name!r})" if self.operator else repr(self.name)
        return f"{what}{f' by {self.by!r}' if self.by else ''}: {self.reason}"


@dataclass(frozen=True)
class Verification:
    source: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def wrong(self) -> list[Check]:
        """The worst first."""
        return [check for check in self.worst_first() if check.verdict == "wrong"]

    def worst_first(self) -> list[Check]:
        return sorted(self.checks, key=lambda check: (check.verdict != "wrong", -check.badness))

    def count(self, stage: Stage) -> tuple[int, int]:
        """How many nodes or values are verified, of how many: a node is where each of its operands is."""
        named: dict[str, bool] = {}
        for check in self.checks:
            if check.stage == stage:
                good = check.verdict in ("verified", "at a kink")
                named[check.name] = named.get(check.name, True) and good
        return sum(named.values()), len(named)

    def reasons(self, stage: Stage) -> list[tuple[str, list[str]]]:
        """Why something of a stage is not verified, and what, the most frequent reason first."""
        return grouped((c.reason, c.name) for c in self.checks if c.stage == stage and c.verdict == "not verified")

    def document(self) -> dict[str, Any]:
        """For JSON, which has no infinities."""
        return {
            "schema": 1,
            "model": self.source,
            "verified": not self.wrong,
            "counts": {stage: dict(zip(("verified", "of"), self.count(stage), strict=True)) for stage in STAGES},
            "checks": [
                {key: _finite(value) for key, value in asdict(check).items() if value != ""} for check in self.worst_first()
            ],
            "notes": list(self.notes),
        }


def grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    pairs = list(pairs)
    order = Counter(reason for reason, _ in pairs)
    return [(reason, list(dict.fromkeys(name for r, name in pairs if r == reason))) for reason, _ in order.most_common()]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and value - value != 0 else value
