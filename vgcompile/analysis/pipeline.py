"""One analysis from end to end: data, three tiers, edges, layers, verdicts, self-check."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import vgcompile
from vgcompile.analysis import edges, verdicts
from vgcompile.analysis.activations import activations, watched
from vgcompile.analysis.bounds.domains import DOMAINS, Domain, chosen
from vgcompile.analysis.bounds.region import Region
from vgcompile.analysis.bounds.region import region as stated_region
from vgcompile.analysis.bounds.support import supports, unbounded
from vgcompile.analysis.budget import budgets
from vgcompile.analysis.expected import ExpectedTier, expected
from vgcompile.analysis.findings import Subject, attention, find
from vgcompile.analysis.findings.precision import underflow
from vgcompile.analysis.floats import FLOATS
from vgcompile.analysis.inputs import input_signals
from vgcompile.analysis.presets import DEFAULT, Preset, preset_named
from vgcompile.analysis.result import Analysis, SelfCheck
from vgcompile.analysis.selfcheck import float32_bounds, self_check
from vgcompile.analysis.sound import SoundTier, sound
from vgcompile.analysis.uses import parameter_layers, uses
from vgcompile.errors import DataError, UserError
from vgcompile.graph.emit import dims
from vgcompile.graph.network import Input, Network
from vgcompile.graph.pause import uncollected
from vgcompile.passes.gradient import ADJOINT, named_values
from vgcompile.runtime import data
from vgcompile.runtime.data import PartName

if TYPE_CHECKING:
    from vgcompile.analysis.instrument import Statistics
    from vgcompile.analysis.measured import Measured, Meter

Array = np.ndarray[Any, Any]
Tier = Literal["sound", "expected", "measured"]
TINY = -10.0  # log10 of a gain
TIERS: tuple[Tier, ...] = ("sound", "expected", "measured")


@dataclass(frozen=True)
class Options:
    """What to analyse, and how.

    ``region`` (:mod:`vgcompile.analysis.bounds.region`) None: `range` where every input declares one, else `everywhere`.
    ``certify``: whether bounds are for the weights as they stand, or for all that their initializers may draw.
    ``domains``: what bounds are the intersection of (:mod:`vgcompile.analysis.bounds.domains`); fewer are quicker and no tighter.
    ``seeds`` K > 1 averages the measured logs over K
    initializations (seeds seed, seed + 1, ...). ``data`` is a file that is read in place of the network's own data, ``part`` the
    part of the latter that is read. ``statistics``: what is measured of each edge, the sum of squares, or also the
    greatest magnitude and the shares of zeros and of what is not finite.
    """

    data: str | None = None
    part: PartName | None = None
    batch: int | None = None
    seed: int | None = None
    seeds: int = 1
    tiers: Sequence[Tier] = TIERS
    region: str | None = None
    certify: Literal["weights", "support"] = "weights"
    domains: Sequence[Domain] = DOMAINS
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    seed_input: bool = False  # the adjoint of each output comes from the data file, as array `adj.<output>`
    mode: Literal["training", "inference"] = "training"
    paths: bool = True  # whether worst paths are spelled out
    preset: str = DEFAULT.name  # thresholds by name (presets.py)
    dtype: str = "float32"  # the type that the model is to be trained in, one of floats.FLOATS
    learning_rate: float | None = None  # of plain gradient descent: updates are judged where it is given
    statistics: Statistics = "squares"


@dataclass(frozen=True)
class Tiers3:
    """What was computed; a tier that was not asked for is None."""

    sound: SoundTier | None
    expected: ExpectedTier | None
    measured: Sequence[Measured]
    batch: int


@uncollected()
def analyze(network: Network, options: Options = Options(), progress: Callable[[str], None] = lambda stage: None) -> Analysis:
    """Annotate every edge of a network.

    Raises UserError for options that do not fit each other, DataError for data that do not fit, GradientRefused where the
    measured tier meets an operator without a gradient rule. ``progress`` is told the name of each stage as it begins.
    """
    preset = _judged_by(options)
    options = replace(options, domains=chosen(options.domains))
    if options.seed_input:
        network = replace(network, loss=None)
    feeds = _feeds(network, options)
    batch = next((count for name, each in network.inputs.items() if (count := _count(feeds, name, each))), options.batch or 64)
    region = stated_region(network, options.region or _default_region(network), feeds)
    if options.certify == "support":
        region = region.over(supports(network))

    progress("bounding")
    with np.errstate(over="ignore"):  # a bound beyond float64 is infinite
        bounds = sound(network, region, domains=options.domains) if "sound" in options.tiers else None
    progress("predicting")
    numbers = {name: array for name, array in feeds.items() if array.dtype.kind in "iub"}
    predicted = partial(expected, network, batch, input_signals(network, feeds), _extents(network, feeds), numbers)
    prediction = predicted() if "expected" in options.tiers else None
    progress("measuring")
    # One prediction costs less than a second compilation, which sums that leave float32 would need.
    meter = _meter(network, options, feeds, _tiny(prediction or predicted())) if "measured" in options.tiers else None
    runs = _measure(meter, network, feeds, options)

    tiers = Tiers3(bounds, prediction, runs, batch)
    every_use = uses(network)
    found, operators = edges.annotate(network, every_use, tiers)
    held = parameter_layers(network)
    layers, verdict, worst = verdicts.judge(network, held, found, tiers, preset, options.paths)
    subject = Subject(network, layers, held, found, tiers, preset, FLOATS[options.dtype], options.learning_rate)
    shares = underflow(subject)
    subject = replace(subject, layers=[replace(layer, underflow=shares[layer.name]) for layer in layers])
    inside = region.contains(feeds)
    drawn = options.seed in (None, network.seed)  # for these weights, not for others drawn anew, unless for all draws
    stated = inside and (drawn or options.certify == "support")
    checked = self_check(found, runs, stated, partial(float32_bounds, network, region, options.domains)) if runs else SelfCheck()
    plots = activations(network, runs[-1].watched if runs else {})
    return Analysis(
        network.name,
        network.source,
        _stated(region, options.domains),
        tuple(found),
        tuple(subject.layers),
        tuple(plots),
        verdict,
        worst,
        checked,
        _provenance(network, options, batch, region, meter, runs, inside),
        tuple(find(subject)),
        tuple(budgets(subject)),
        tuple(operators),
    )


def _judged_by(options: Options) -> Preset:
    """The preset. Raises UserError for options that are not known or do not fit each other."""
    unknown = set(options.tiers) - set(TIERS)
    if unknown:
        raise UserError(f"unknown tier {sorted(unknown)[0]!r}; tiers are {', '.join(TIERS)}")
    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}: at least one initialization is needed")
    if options.dtype not in FLOATS:
        raise UserError(f"--dtype {options.dtype!r}: it takes {', '.join(FLOATS)}")
    if options.learning_rate is not None and not 0.0 < options.learning_rate < math.inf:
        raise UserError(f"--learning-rate {options.learning_rate:g}: a step takes a number above 0")
    preset = preset_named(options.preset)
    for option, needs in (("preset", preset.quantity != "relative"), ("learning-rate", options.learning_rate is not None)):
        if needs and "measured" not in options.tiers:
            raise UserError(f"--{option} is about gradients as they are, which the measured tier alone knows; add it to --tiers")
    return preset


def _feeds(network: Network, options: Options) -> Mapping[str, Array]:
    seed = options.seed if options.seed is not None else network.seed
    if options.seed_input:
        network = replace(network, inputs={**network.inputs, **_adjoints(network, options.data)})
    return data.batch(network, file=options.data, size=options.batch, seed=seed, part=options.part)


def _count(feeds: Mapping[str, Array], name: str, declared: Input) -> int | None:
    """Samples that are fed to an input; None of one that counts none."""
    return feeds[name].shape[declared.batch_axis] if name in feeds and declared.shape else None


def _extents(network: Network, feeds: Mapping[str, Array]) -> dict[str, int]:
    """What the inputs' symbols stand for in these data."""
    given = [(declared.shape, feeds[name].shape) for name, declared in network.inputs.items() if name in feeds]
    return {dim: n for dims, shape in given for dim, n in zip(dims, shape, strict=True) if isinstance(dim, str)}


def _adjoints(network: Network, file: str | None) -> dict[str, Input]:
    """The arrays ``adj.<output>`` of a data file, as inputs."""
    if file is None:
        raise DataError("--seed-input takes the adjoints of the outputs from --data FILE.npz; no file was given")
    values, found = named_values(network.model), {}
    samples = next((declared.samples for declared in network.inputs.values()), None)
    for name in network.outputs:
        dtype, shape = values[name].dtype, dims(values[name])
        assert dtype is not None
        axis = shape.index(samples) if samples in shape else 0
        found[f"{ADJOINT}{name}"] = Input(f"{ADJOINT}{name}", shape, dtype, role="target", batch_axis=axis)
    return found


def _tiny(prediction: ExpectedTier) -> bool:
    """Whether some gradient is predicted to be so small that its squares leave float32."""
    return any(e.mean is not None and e.mean < TINY for e in prediction.total.values())


def _meter(network: Network, options: Options, feeds: Mapping[str, Array], exact: bool) -> Meter:
    from vgcompile.analysis.measured import Meter  # with ONNX Runtime, which the other tiers do without

    bent = [node.inputs[0].name or "" for node in watched(network) if node.inputs[0] is not None]
    seen = list(dict.fromkeys([*bent, *attention.watched(network)]))
    return Meter(network, options.provider, seen, options.statistics, feeds, exact)


def _measure(meter: Meter | None, network: Network, feeds: Mapping[str, Array], options: Options) -> list[Measured]:
    if meter is None:
        return []
    if options.seeds == 1 and options.seed is None:
        return [meter.measure(feeds)]
    first = options.seed if options.seed is not None else network.seed
    return [meter.measure(feeds, seed) for seed in range(first, first + options.seeds)]


def _stated(region: Region, domains: Sequence[Domain]) -> str:
    """The set of inputs in words, and what bounds are of where that is not all that there is."""
    return region.text if len(domains) == len(DOMAINS) else f"{region.text}; bounds of {', '.join(domains)} alone"


def _default_region(network: Network) -> str:
    floats = [declared for declared in network.inputs.values() if declared.dtype.is_floating_point()]
    return "range" if floats and all(declared.range is not None for declared in floats) else "everywhere"


def _provenance(
    network: Network, options: Options, batch: int, region: Region, meter: Meter | None, runs: Sequence[Measured], inside: bool
) -> dict[str, object]:
    loss = [run.loss for run in runs if run.loss is not None and math.isfinite(run.loss)]
    return {
        "vgcompile": vgcompile.__version__,
        "onnx": version("onnx"),
        "onnxruntime": version("onnxruntime") if meter is not None else None,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "provider": meter.session.provider if meter is not None else None,
        "tiers": list(options.tiers),
        "preset": options.preset,
        "dtype": options.dtype,
        "learning_rate": options.learning_rate,
        "mode": options.mode,
        "region": region.form,
        "certify": options.certify,
        "domains": list(options.domains),
        "unbounded_support": unbounded(network, region.parameters),
        "data": options.data or _own_data(network, options),
        "data_inside_region": inside,
        "batch": batch,
        "batch_axis": {name: declared.batch_axis for name, declared in network.inputs.items() if declared.batch_axis},
        "seed": options.seed if options.seed is not None else network.seed,
        "seeds": options.seeds,
        "loss": network.loss,
        "loss_value": sum(loss) / len(loss) if loss else None,
        "reduction": network.reduction,
        "statistics": options.statistics if runs else None,
        "adjoint_norm": _adjoint_norm(runs),
        "adjoint": _adjoint_text(network, options),
        "outputs": list(network.outputs),
    }


def _adjoint_norm(runs: Sequence[Measured]) -> float | None:
    """log10 ||dL/dy||: what makes absolute numbers of gains."""
    norms = [run.norm for run in runs]
    return sum(map(math.log10, norms)) / len(norms) if norms and all(0.0 < norm < math.inf for norm in norms) else None


def _own_data(network: Network, options: Options) -> str:
    if network.data is None or not network.data.path:
        return "generated"
    files = ", ".join(network.data.arrays.values()) if network.data.apart else network.data.path
    return f"{files}, {options.part or 'train'}" if network.data.split is not None else files


def _adjoint_text(network: Network, options: Options) -> str:
    if options.seed_input:
        return f"given with the data as {ADJOINT}<output>"
    return "of the loss" if network.loss is not None else "Gaussian, of fixed seed, for the model has no loss"
