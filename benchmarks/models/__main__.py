"""Our models beside those that people know.

    python -m benchmarks.models counts [NAME ...]   # parameters: ours, the published number, and the source
    python -m benchmarks.models check [NAME ...]    # output and gradients against PyTorch in float64, weights copied over
    python -m benchmarks.models return [NAME ...]   # compiled, imported, and the same values and parameters again

``check`` needs torchvision, timm and transformers, each for its own models; what is not installed is said and passed over. All
take ten minutes, and GPT-2 takes 7 GB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import vgcompile
from benchmarks.models.comparison import MODELS, Comparison, compared
from benchmarks.models.references import REFERENCES
from vgcompile.errors import ModelError
from vgcompile.graph.storing import save_models
from vgcompile.importing import imported
from vgcompile.passes.check import verified
from vgcompile.passes.inference import inference


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.models", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["counts", "check", "return"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args(arguments)
    run = {"counts": counts, "check": checked, "return": returned}[given.what]
    return run(given.names or list(REFERENCES))


def counts(names: Sequence[str]) -> int:
    """From shapes alone: no weight is drawn."""
    differ = 0
    print(f"{'model':22}{'ours':>13}{'published':>13}  source")
    for name in names:
        ours, reference = sum(vgcompile.open_network(MODELS / f"{name}.yaml").sizes().values()), REFERENCES[name]
        differ += ours != reference.published
        verdict = "" if ours == reference.published else "  DIFFERS"
        print(f"{name:22}{ours:>13,}{reference.published:>13,}  {reference.source}{verdict}")
    return int(differ > 0)


def checked(names: Sequence[str]) -> int:
    """Equal is what is within 1e-5 in float64; float32 is shown, it cannot decide."""
    wrong = 0
    print(f"{'':21} float64, ours against PyTorch's{'':13}float32 against the same, ours (PyTorch's)")
    print(f"{'model':21}{'output':>9}{'parameters':>12}{'worst':>9}{'inputs':>9}{'output':>16}{'parameters':>20}{'inputs':>20}")
    for name in names:
        try:
            found = compared(name, REFERENCES[name], REFERENCES[name].sizes)
        except (ImportError, RuntimeError) as error:  # a library that is not there, or of another build
            print(f"{name:21}not compared: {type(error).__name__}: {str(error)[:80]}")
            continue
        wrong += not found.equal
        print(f"{name:21}{row(found)}  {'equal' if found.equal else 'DIFFERS'}", flush=True)
    return int(wrong > 0)


def returned(names: Sequence[str]) -> int:
    """An import compares values itself, on one batch; here the parameters are counted, and the lines."""
    lost = 0
    print(f"{'model':22}{'parameters':>13}{'returned':>13}{'lines':>7}")
    for name in names:
        network = vgcompile.open_network(MODELS / f"{name}.yaml")
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            save_models({path: verified(inference(network))}, path.with_suffix(".data"))
            try:
                made = imported(path)
            except ModelError as error:
                lost += 1
                print(f"{name:22}refused: {str(error)[:200]}", flush=True)
                continue
        there = sum(network.sizes().values())
        here = sum(array.size for key, array in made.weights.items() if not key.rpartition("/")[2].startswith("running_"))
        lost += here != there
        print(f"{name:22}{there:>13,}{here:>13,}{made.text.count(chr(10)):>7}{'' if here == there else '  DIFFERS'}", flush=True)
    return int(lost > 0)


def row(found: Comparison) -> str:
    double, single, theirs = found.double, found.single, found.theirs
    exact = f"{double.output:>9.1e}{double.parameters:>12.1e}{double.worst:>9.1e}{double.inputs:>9.1e}"
    pairs = [(single.output, theirs.output), (single.parameters, theirs.parameters), (single.inputs, theirs.inputs)]
    return exact + "".join(f"{ours:>10.1e}{f'({others:.1e})':>10}" for ours, others in pairs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
