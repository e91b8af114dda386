"""Judge gradient compilers on ONNX's node tests.

    python -m benchmarks.conformance [--ops Conv,MaxPool] [--tool vgcompile,onnx-ad] [--form published,symbolic] [--jobs 2]
                                     [--json out/conformance.json] [--markdown docs/conformance.md]

Run from the repository's root. Exit code 1 if vgcompile is wrong anywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.conformance.suite import FORMS, Result, suite
from benchmarks.conformance.table import grouped, markdown, summary
from benchmarks.conformance.tools import TOOLS
from benchmarks.conformance.verdict import REFUSED, UNJUDGED, WRONG


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", help="operators, by comma: only their tests")
    parser.add_argument("--cases", help="parts of test names, by comma: only these tests")
    parser.add_argument("--tool", help="by comma; default: those that are installed")
    parser.add_argument("--form", default=",".join(FORMS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("out/conformance.json"))
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    tools = given.tool.split(",") if given.tool else [tool for tool in TOOLS if tool != "onnx-ad" or find_spec("onnx_ad")]
    forms = given.form.split(",")
    operators = set(given.ops.split(",")) if given.ops else None
    parts = given.cases.split(",") if given.cases else [""]
    result = suite(
        tools,
        forms,
        lambda case: (operators is None or case.operator in operators) and any(part in case.name for part in parts),
        given.jobs,
        _progress,
    )
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(_document(result), indent=1) + "\n")
    if given.markdown:
        given.markdown.write_text(markdown(result, tools, forms, _versions(tools)))
    print(_report(result, tools, forms))
    return int(any(v.tool == "vgcompile" and v.verdict == WRONG for v in result.verdicts))


def _progress(done: int, count: int) -> None:
    if done % 50 == 0 or done == count:
        print(f"{done} of {count}", file=sys.stderr, flush=True)


def _versions(tools: list[str]) -> str:
    packages = ("onnx", "onnxruntime", *(tool for tool in tools if tool != "vgcompile"))
    return ", ".join(f"{package} {version(package)}" for package in packages)


def _document(result: Result) -> dict[str, object]:
    return {
        "verdicts": [verdict.document() for verdict in result.verdicts],
        "excluded": [{"name": excluded.name, "reason": excluded.reason} for excluded in result.excluded],
        "without_symbol": list(result.without_symbol),
    }


def _report(result: Result, tools: list[str], forms: list[str]) -> str:
    lines = [summary(result, tools, forms), ""]
    for tool in tools:
        for form in forms:
            for kind in (REFUSED, UNJUDGED):
                found = [v for v in result.verdicts if (v.tool, v.form, v.verdict) == (tool, form, kind)]
                lines += [f"{tool} {form} {kind} {len(same):4}  {reason[:160]}" for reason, same in grouped(found)]
            wrong = [v for v in result.verdicts if (v.tool, v.form, v.verdict) == (tool, form, WRONG)]
            lines += [f"{tool} {form} WRONG {v.case}: {v.kind}: {v.reason[:200]}" for v in wrong]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
