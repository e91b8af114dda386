"""The fuzz run itself, and each text that it found an answer for that was none."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Sequence
from time import process_time

import pytest

from benchmarks.fuzz.cases import case
from benchmarks.fuzz.judging import fuzz
from vgcompile.build import build
from vgcompile.cli.snippet import WIDEST, show
from vgcompile.errors import Complaint, Mark, SpecError
from vgcompile.spec import loads

FILE = "model.yaml"
INPUTS = "inputs: {x: {shape: [batch, 4]}}\n"
DENSE = "layers: [{kind: dense, units: 4}]\n"


def judged(text: str, *settings: str) -> Sequence[Complaint]:
    try:
        return build(loads(text, FILE, settings=settings)).warnings
    except SpecError as error:
        return error.complaints


def said(text: str, *settings: str) -> list[str]:
    return [f"{found.rule.code}: {found.message}" for found in judged(text, *settings)]


def test_mutated_models_are_models_or_complaints() -> None:
    tally = fuzz(range(10**6, 10**6 + 300))
    assert tally.failures == {}
    assert len(tally.said) > 20
    assert {"include", "variants", "blocks", "params", "data", "${...}", "--set"} <= set(tally.read)


def test_a_case_is_that_of_its_number_alone() -> None:
    first = [case(seed) for seed in range(40)]
    assert [case(seed) for seed in reversed(range(40))][::-1] == first


# What it found


@pytest.mark.parametrize("value", ["{}", "[int]", "''", "3"])
def test_a_type_that_is_no_word_is_unknown(value: str) -> None:
    assert said(f"params: {{a: {{type: {value}, default: 3}}}}\n{INPUTS}{DENSE}")[0].startswith("VG602: unknown type ")


def test_a_layer_is_looked_up_by_name_though_a_name_beside_it_is_a_mapping() -> None:
    layers = "layers: [{kind: dense, name: {a: 1}, units: 4}, {kind: dense, name: last, units: 4}]\n"
    found = said(INPUTS + layers, "layers.last.units=8")
    assert [text for text in found if "VG608" in text] == []


def test_a_parameter_is_set_though_there_are_none_yet() -> None:
    text = INPUTS + 'layers: [{kind: dense, units: "${p}"}]\n'
    assert said(text, "params.p=4") == []
    assert said(f"variants: {{small: {{params.p: 3}}}}\n{INPUTS}{DENSE}") == []


@pytest.mark.parametrize("layer", ["{kind: dense, units: 4, from: null}", "{kind: dense, units: 4, share: null}"])
def test_a_wire_to_nothing_is_that_to_the_layer_before(layer: str) -> None:
    assert said(f"{INPUTS}layers: [{{kind: tanh}}, {layer}]\n") == []
    losses = "loss: {kind: mse, input: null, target: y}\n"
    spec = loads(f"inputs: {{x: {{shape: [batch, 4]}}, y: {{shape: [batch, 4]}}}}\nlayers: [{layer}]\n{losses}")
    assert spec.losses[0].sources == spec.outputs == ("dense",)


@pytest.mark.parametrize(
    "layer",
    ["{kind: batch_norm}", "{kind: positions, encoding: sinusoidal}", "{kind: dense, units: 2147483647, spectral_norm: {}}"],
)
def test_what_is_not_trained_is_made_when_it_is_read(layer: str) -> None:
    tracemalloc.start()
    build(loads(f"inputs: {{x: {{shape: [batch, 2147483647, 8]}}}}\nlayers: [{layer}]\n", FILE))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_an_activation_that_is_a_word_repeats_as_any_other() -> None:
    inputs = "inputs: {x: {shape: [batch, 3, 4]}}\n"
    recurrent = "layers: [{kind: rnn, units: 4, activation: relu}, {kind: relu}]\n"
    assert said(inputs + recurrent) == ["VG507: relu 'relu' directly behind another relu"]
    inside = "layers: [{kind: feed_forward, activation: relu}, {kind: relu}]\n"
    assert said(inputs + inside) == []


@pytest.mark.parametrize(
    "layer",
    [
        "{kind: block, repeat: 10000, layers: [{kind: block, repeat: 10000, layers: [{kind: dense, units: '${4 + 0 * i}'}]}]}",
        "{kind: block, repeat: 90000, layers: [{kind: dense, units: '${4 + 0 * i}'}]}",
        "{kind: block, repeat: 4000, layers: [{kind: reshape, shape: [" + "1, " * 99 + "'${4 + 0 * i}']}]}",
    ],
)
def test_too_many_copies_are_refused_before_they_take_their_time(layer: str) -> None:
    found = said(f"{INPUTS}layers: [{layer}]\n")
    assert found[0].startswith(
        ("VG209: blocks and repeats open into more than 50,000", "VG209: blocks and repeats open into more than 20,000")
    )


@pytest.mark.parametrize("filling", ["a", "é", "世", "e\u0301", " ", "\t"])
def test_a_line_of_a_megabyte_is_cut_in_time(filling: str) -> None:
    text = "x" + filling * 500_000 + "x"
    begun = process_time()
    stream = io.StringIO()
    show([Complaint(Mark(FILE, 1, 3), "")], stream, {FILE: text})
    assert process_time() - begun < 5  # a scan that begins anew at each blank would take hours
    assert max(map(len, stream.getvalue().splitlines())) < 3 * WIDEST
