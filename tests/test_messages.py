"""What a person is told: of options, of places that cannot be written, of included files, of several losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from vgcompile.analysis import Options, analyze
from vgcompile.build import build
from vgcompile.cli import main
from vgcompile.errors import SpecError
from vgcompile.render import activation_plot, canvas
from vgcompile.render.labels import measured
from vgcompile.render.layergraph import layer_graph
from vgcompile.spec import load, loads
from vgcompile.spec.layout import formatted

MODEL = """\
inputs: {x: {shape: [batch, 4], range: [0, 1]}, y: {shape: [batch], type: int64, classes: 3}}
layers:
  - {kind: dense, name: hidden, units: 8, activation: relu}
  - {kind: dense, name: logits, units: 3}
loss: {kind: cross_entropy, target: y}
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text(MODEL)
    return "model.yaml"


# options


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data={normalize: {x: {mean: []}}}", "at least one is needed here"),
        ("data={normalize: {x: {sd: 1e39}}}", "the numbers of a network are float32: at most 3.4e38"),
        ("layers.hidden={kind: scale, by: 1e39}", "the numbers of a network are float32: at most 3.4e38"),
        ("loss.input=5", "'input' should be a string or a list, found 5"),
        ("data={shuffle: 3}", "'shuffle' should be true or false or a mapping, found 3"),
        ("layers.logits.from=3", "'from' should be a string or a list, found 3"),
    ],
)
def test_an_option_is_complained_about_in_our_own_words_and_once(setting: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(MODEL, settings=[setting])
    assert str(caught.value) == f"--set {setting}: {said}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--view", "depht"],
            "'--view': 'depht' is not one of 'forward', 'butterfly', 'depth', 'steps', 'activations'; did you mean 'depth'?",
        ),
        (["--batch", "x"], "'--batch': it should be a valid integer\n"),
        (["--batch", "0"], "'--batch': it should be greater than or equal to 1\n"),
    ],
)
def test_values_of_options_are_told_without_a_validators_prefix(
    options: list[str], said: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw", model, *options]) == 2
    assert f"Error: Invalid value for {said}" in capsys.readouterr().err


# places to write


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["compile", "-o", "file"],
            "file/model.onnx: file is a file, not a folder; name another place with -o, or move the file",
        ),
        (["report", "-o", "file/deeper"], "file/deeper/model.onnx: file is a file, not a folder; name another place with -o"),
        (["draw", "-o", "file/picture.svg"], "file/picture.svg: file is a file, not a folder; name another place with -o"),
        (["draw", "-f", "svg", "-o", "folder"], "folder: it is a folder; name another place with -o, such as folder/NAME"),
    ],
)
def test_what_is_in_the_way_of_a_file_is_named(
    command: list[str], said: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert main([command[0], model, *command[1:]]) == 2
    assert f"cannot write {said}" in capsys.readouterr().err


# included files

TRAPS = {
    "truth word": ("params: {width: no}", "included.yaml:1:17: warning[VG401]: no is a string here"),
    "octal": ("params: {width: 010}", "included.yaml:1:17: warning[VG402]: 010 is 10 here"),
    "empty value": ("params: {width: 8}\nvariants:\n", "included.yaml:2:"),
    "anchor": ("params: {width: &a 8}", "included.yaml:1:17: warning[VG404]: no alias uses the anchor"),
    "duplicate": ("params: {width: 8, width: 9}", "included.yaml:1:20: key 'width' is written twice"),
    "tab": ("params:\n\twidth: 8", "included.yaml:2:1: "),
}


@pytest.mark.parametrize(("text", "said"), TRAPS.values(), ids=TRAPS)
def test_an_included_file_is_read_as_carefully(text: str, said: str, model: str, tmp_path: Path) -> None:
    (tmp_path / "included.yaml").write_text(text + "\n")
    (tmp_path / model).write_text("include: included.yaml\n" + MODEL.replace("name: hidden,", "name: hidden, share: null,"))
    width = MODEL.replace("units: 8", 'units: "${8 if width == 0 else 8}"')
    (tmp_path / model).write_text("include: included.yaml\n" + width)
    try:
        found = [str(complaint) for complaint in build(load(model)).warnings]
    except SpecError as error:
        found = [str(complaint) for complaint in error.complaints]
    assert len(found) == 1
    assert found[0].startswith(said)


def test_a_comment_in_an_included_file_takes_its_warning_back(model: str, tmp_path: Path) -> None:
    (tmp_path / "included.yaml").write_text("params: {width: 010}  # vgcompile: ignore VG402\n")
    (tmp_path / model).write_text("include: included.yaml\n" + MODEL.replace("units: 8", 'units: "${width}"'))
    assert build(load(model)).warnings == ()


# designs


@pytest.mark.parametrize(
    ("shape", "layer", "warned"),
    [
        ("[batch, 4]", "{kind: dense, units: 4}", True),
        ("[batch, 6, 4]", "{kind: dense, units: 4}", False),
        ("[batch, 6, 4]", "{kind: conv1d, filters: 4, kernel: 1}", True),
        ("[batch, 3, 6, 4]", "{kind: conv2d, filters: 4, kernel: 1}", True),
        ("[batch, 6, 4]", "{kind: conv1d, filters: 4, kernel: 1, bias: false}", False),
    ],
)
def test_a_bias_is_superfluous_only_where_its_own_axis_is_normalized(shape: str, layer: str, warned: bool) -> None:
    """Of [batch, time, features] batch statistics are of each time, and the bias is of each feature."""
    text = f"inputs: {{x: {{shape: {shape}}}}}\nlayers:\n  - {layer}\n  - {{kind: batch_norm, activation: relu}}\n"
    assert ["VG501"] * warned == [complaint.rule.code for complaint in build(loads(text)).warnings]


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            "[{kind: relu, name: bend}, {kind: dense, units: 4, share: bend}]",
            "2:67: 'bend' has no parameters to share; name a layer of the same kind",
        ),
        (
            "[{kind: dense, name: first, units: 4}, {kind: relu, share: first}]",
            "2:68: 'relu' has no parameters of its own; leave share: out",
        ),
        (
            "[{kind: dense, name: first, units: 4}, {kind: tanh}, {kind: batch_norm, share: first}]",
            "2:88: 'first' has no scale to share; name a layer of the same kind",
        ),
    ],
)
def test_what_is_shared_has_to_be_there(layers: str, said: str) -> None:
    text = f"inputs: {{x: {{shape: [batch, 4]}}}}\nlayers: {layers}\n"
    with pytest.raises(SpecError) as caught:
        build(loads(text, "m.yaml"))
    assert str(caught.value) == f"m.yaml:{said}"
    assert [complaint.rule.code for complaint in caught.value.complaints] == ["VG208"]


# what a new user met


UNIT = """\
params: {depth: 2, act: relu, skip: true}
blocks:
  unit: {layers: [{kind: "${act}"}, {kind: dense, units: 4}]}
inputs: {x: {shape: [batch, 4]}}
layers:
  - {kind: dense, name: first, units: 4}
  - {kind: unit, repeat: "${depth - 1}", when: "${skip}"}
"""


def test_what_only_a_layer_that_is_left_out_reads_is_not_unused() -> None:
    assert build(loads(UNIT, settings=["skip=false"])).warnings == ()
    unread = UNIT.replace(', repeat: "${depth - 1}"', "")
    assert [complaint.rule.code for complaint in build(loads(unread, settings=["skip=false"])).warnings] == ["VG406"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("depth=1", "m.yaml:7:26: 'repeat' should be greater than 0, found 0; when: leaves a layer out"),
        ("first.units=3", "--set first.units=3: 'first' is neither a field nor a parameter; a layer's is layers.first.units"),
    ],
)
def test_options_that_nearly_mean_something(setting: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(UNIT, "m.yaml", settings=[setting])
    assert str(caught.value) == said


def test_a_number_of_layers_keeps_its_place() -> None:
    text = "inputs:\n  x: {shape: [batch, 5, 4]}\nlayers:\n  - {kind: gru, units: 4, layers: 2, output: last}\n"
    assert formatted(text, "m.yaml") == text


# pictures


def test_the_use_of_a_shape_is_no_gradient() -> None:
    """A class token reads the size of the batch as well as the values; what comes back along the values is all that counts."""
    text = "inputs: {x: {shape: [batch, 5, 4]}}\nlayers:\n  - {kind: dense, name: first, units: 4}\n  - {kind: class_token}\n"
    network = build(loads(text + "  - {kind: select, index: 1}\n"))
    graph = layer_graph(network, analyze(network, Options(tiers=("measured",), batch=4)))
    names = {vertex.order: vertex.name for vertex in graph.vertices}
    gains = [arrow.gain for arrow in graph.arrows if (names[arrow.source], names[arrow.target]) == ("first", "class_token")]
    found = [measured(gain) for gain in gains if gain is not None]
    assert found == [pytest.approx(0.0, abs=1e-6)]


@pytest.mark.parametrize("name", ["h", "feed_forward_of_the_second_stack", "a_name_that_is_as_long_as_a_sentence_" * 4])
def test_long_names_leave_a_plot_its_room(name: str) -> None:
    """A legend that is wider than the figure is cut off, and squeezes the axes."""
    text = f"inputs: {{x: {{shape: [batch, 4]}}}}\nlayers:\n  - {{kind: dense, units: 4, name: {name}, activation: gelu}}\n"
    text += f"  - {{kind: dense, units: 4, name: {name}2, activation: gelu}}\n  - {{kind: dense, units: 4}}\n"
    network = build(loads(text))
    (plot,) = activation_plot.kinds_of(analyze(network, Options(tiers=("measured",), batch=4)))
    figure, panel = canvas.figure(7.0, 3.4)
    activation_plot._activation(panel, *plot)
    figure.draw_without_rendering()
    axes, legend = panel.get_window_extent(), panel.get_legend().get_window_extent()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.width
    assert axes.width > 0.85 * figure.bbox.width


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("{kind: cross_entropy, target: y}", "cross_entropy"),
        ("{kind: cross_entropy, target: y, weight: 0.5}", "cross_entropy"),
        (
            "[{kind: cross_entropy, target: y}, {kind: cross_entropy, target: y, input: hidden, name: side}, "
            "{kind: mse, input: hidden, target: x}]\npenalty: {l2: 1e-4}",
            "cross_entropy + side (cross_entropy) + mse + penalty",
        ),
    ],
)
def test_the_box_of_a_loss_names_all_of_its_terms(loss: str, kind: str) -> None:
    text = (
        MODEL.replace("{kind: cross_entropy, target: y}", loss)
        .replace("units: 8", "units: 4")
        .replace("classes: 3", "classes: 4")
    )
    network = build(loads(text.replace("name: logits, units: 3", "name: logits, units: 4")))
    assert [vertex.kind for vertex in layer_graph(network).vertices if vertex.role == "loss"] == [kind]
