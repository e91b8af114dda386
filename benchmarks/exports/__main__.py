"""Models as their exporters write them.

    python -m benchmarks.exports list
    python -m benchmarks.exports check [--models resnet,lstm] [--form loss] [--fresh]
    python -m benchmarks.exports sizes [--models ...] [--show]
    python -m benchmarks.exports compile-time [--kinds dense,attention,convolution] [--nodes 1000,3000,10000]

Files are kept in out/exports; --fresh exports them anew. Results go there as JSON too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.exports import checking, sizes, timing
from benchmarks.exports.architectures import ARCHITECTURES
from benchmarks.exports.exporting import Architecture

EXPORTER = 1e-3  # a forward pass that is off by more than this is the exporter's mistake


def main() -> int:
    given = _arguments()
    if given.command == "compile-time":
        found: list[Any] = timing.table(given.kinds.split(","), [int(count) for count in given.nodes.split(",")])
        return _written(given.command, found)
    chosen = [ARCHITECTURES[name] for name in given.models.split(",")] if given.models else list(ARCHITECTURES.values())
    if given.command == "list":
        for entry in chosen:
            print(f"{entry.name:24}{entry.family:24}{entry.written_by:32}{entry.form}")
        return 0
    if given.fresh:
        shutil.rmtree(checking.CACHE, ignore_errors=True)
    if given.command == "sizes":
        return _written(given.command, [asdict(row) for row in sizes.table(chosen, given.form, given.show)])
    return _checked(chosen, given.form)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exports", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["list", "check", "sizes", "compile-time"])
    parser.add_argument("--models", default="", help="names, separated by commas (default: all)")
    parser.add_argument(
        "--form", choices=["loss", "seed"], help="end files at their loss, or at their output (default: each its own)"
    )
    parser.add_argument("--fresh", action="store_true", help="export anew")
    parser.add_argument("--show", action="store_true", help="sizes: list the nodes of the joint graph")
    parser.add_argument("--kinds", default="dense,attention,convolution")
    parser.add_argument("--nodes", default="1000,3000,10000")
    return parser.parse_args()


def _checked(chosen: Sequence[Architecture], form: str | None) -> int:
    """One line for each architecture, and what was found wrong below it."""
    verdicts = []
    for entry in chosen:
        verdict = checking.check(entry, form)
        verdicts.append(verdict)
        word = "ok" if verdict.passed else "REFUSED" if verdict.refused else "FAILED" if verdict.failed else "WRONG"
        line = f"{entry.name:24}{verdict.written_by:32}{verdict.form:6}{word:8}"
        if (worst := verdict.worst) is not None and verdict.matching is not None:
            line += f"worst {worst.ours:.1e} (PyTorch float32 {worst.theirs:.1e}) of {len(verdict.differences)} gradients"
            line += f" at {', '.join(map(str, sorted({d.batch for d in verdict.differences})))}"
            line += f"; {verdict.matching.renamed} renamed, {verdict.matching.rearranged} rearranged"
        print(line, flush=True)
        if not verdict.passed:
            wrong = ", ".join(f"{d.value} at {d.batch}: {d.ours:.1e} ({d.theirs:.1e})" for d in verdict.wrong[:6])
            folded = "folded by the exporter: " + ", ".join(verdict.folded) if verdict.folded else ""
            exporter = f"the exported file's own output is off by {verdict.exporter:.1e}" if verdict.exporter > EXPORTER else ""
            print("    " + (verdict.refused or verdict.failed or "; ".join(filter(None, (exporter, wrong, folded)))))
    print(f"{sum(verdict.passed for verdict in verdicts)} of {len(verdicts)} hold")
    _written("check", [{**asdict(v), "matching": None, "passed": v.passed} for v in verdicts])
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def _written(name: str, found: list[Any]) -> int:
    checking.CACHE.mkdir(parents=True, exist_ok=True)
    (checking.CACHE / f"{name}.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
