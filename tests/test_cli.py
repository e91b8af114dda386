"""The command line: what each command says and writes, on which stream, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import jsonschema
import numpy as np
import onnx
import pytest

import vgcompile.analysis
import vgcompile.compiler
from vgcompile.analysis.document import json_schema
from vgcompile.cli import main
from vgcompile.cli.files import write_atomically
from vgcompile.errors import UserError

ROOT = Path(__file__).parent.parent
DEEP = """\
name: deep
inputs:
  x: {shape: [N, 8], range: [0, 1]}
  t: {shape: [N], type: int64, classes: 3}
layers:
  - kind: block
    name: hidden
    repeat: 8
    layers:
      - {kind: dense, units: 8, activation: sigmoid}
  - {kind: dense, name: logits, units: 3}
loss: {kind: cross_entropy, input: logits, target: t}
"""
SHALLOW = DEEP.replace("repeat: 8", "repeat: 2").replace("sigmoid", "tanh").replace("name: deep", "name: shallow")

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one command in a folder with two models; gives its exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep.yaml").write_text(DEEP)
    (tmp_path / "shallow.yaml").write_text(SHALLOW)

    def command(*arguments: str) -> SimpleNamespace:
        capfdbinary.readouterr()
        code = main(arguments)
        said = capfdbinary.readouterr()
        return SimpleNamespace(code=code, out=said.out.decode(errors="replace"), err=said.err.decode(), raw=said.out)

    return command


# what each command does


def test_check(run: Run) -> None:
    done = run("check", "deep.yaml")
    assert (done.code, done.err) == (0, "")
    assert "input   x float [N, 8] in [0, 1]" in done.out
    assert "target  t int64 [N] of 3 classes" in done.out
    assert "9 with 18 parameters of 603 numbers" in done.out
    assert "deep.yaml: vanishing: hidden/1/dense" in done.out
    assert run("check", "shallow.yaml").out.endswith("loss    loss\n")


def test_compile(run: Run) -> None:
    done = run("compile", "deep.yaml", "-o", "made")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == ["wrote made/deep.onnx", "wrote made/deep.grad.onnx"]
    joint = onnx.load("made/deep.grad.onnx")
    onnx.checker.check_model(joint, full_check=True)
    assert {"loss", "grad.logits/weight"} <= {output.name for output in joint.graph.output}


def test_compile_without_a_loss(run: Run) -> None:
    Path("plain.yaml").write_text(
        DEEP.split("loss:")[0].replace("name: deep", "name: plain").replace("  t: {shape: [N], type: int64, classes: 3}\n", "")
    )
    done = run("compile", "plain.yaml")
    assert done.code == 0
    assert done.err.splitlines()[0] == "wrote out/plain.onnx"
    assert "plain.yaml has no loss" in done.err
    assert not Path("out/plain.grad.onnx").exists()


def test_analyze_as_a_table(run: Run) -> None:
    done = run("analyze", "deep.yaml")
    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[0] == "deep.yaml, range: x in [0, 1]; numbers are log10 of gradient norms"
    assert lines[2].split() == ["layer", "kind", "line", "proved", "predicted", "measured", "relative", "update", "verdict"]
    assert lines[3].startswith("hidden/1/dense  dense    10  [")
    assert lines[3].split("  ")[-1].startswith("vanishing (")
    assert "verdict: vanishing" in done.out
    assert "worst layer: hidden/1/dense (deep.yaml:10)" in done.out
    assert lines == [line.rstrip() for line in lines]
    assert "\x1b" not in done.out


def test_names_are_printed_as_they_are(run: Run) -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
    m (float[N, 2] x) => (float[N, 2] y) <float[2, 2] "[red]:smile:.weight" = {1, 0, 0, 1}>
    { y = MatMul(x, "[red]:smile:.weight") }""")
    onnx.save(model, "[bold].onnx")
    lines = run("analyze", "[bold].onnx").out.splitlines()
    assert lines[0].startswith("[bold].onnx, ")
    assert lines[3].startswith("[red]:smile:  MatMul")


def test_the_spelled_out_path_adds_up(run: Run) -> None:
    document = json.loads(run("analyze", "deep.yaml", "--json").out)
    said = run("analyze", "deep.yaml").out.splitlines()
    path = next(line for line in said if line.startswith("its strongest path")).split(": ", 1)[1]
    steps, total = path.rsplit(" = ", 1)
    assert sum(float(step.rsplit(" ", 1)[1]) for step in steps.split(", ")) == pytest.approx(float(total), abs=0.06)
    assert float(total) == pytest.approx(document["verdict"]["worst_path"]["gain"], abs=0.005)


def test_analyze_as_json(run: Run) -> None:
    done = run("analyze", "deep.yaml", "--json", "--tiers", "expected,measured", "--batch", "7", "--seed", "3", "--seeds", "2")
    document = json.loads(done.out)
    jsonschema.validate(document, json_schema())
    assert document["provenance"]["batch"] == 7
    assert document["provenance"]["seeds"] == 2
    assert document["layers"][0]["gain"]["why"]["sound.hi"] == "not_run"


def test_analyze_takes_adjoints_from_the_data(run: Run) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.random((5, 8)), "t": rng.integers(0, 3, 5), "adj.logits": rng.normal(size=(5, 3)).astype(np.float32)}
    np.savez("batch.npz", **arrays)
    document = json.loads(run("analyze", "deep.yaml", "--data", "batch.npz", "--seed-input", "--json").out)
    assert document["provenance"]["loss"] is None
    assert document["layers"][-1]["gain"]["measured"] == pytest.approx(0.0, abs=1e-6)


def test_adjoints_are_read_as_all_data_are(run: Run) -> None:
    lossless = DEEP.split("loss:")[0].replace("  t: {shape: [N], type: int64, classes: 3}\n", "")
    Path("lossless.yaml").write_text(lossless)
    for adjoint, message in (
        (np.ones((5, 3)), ""),  # in double
        (np.ones((5, 4)), "'adj.logits' needs float [N, 3], found float64 [5, 4]"),
        (np.full((5, 3), np.nan), "array 'adj.logits', sample 0: holds numbers that are not finite"),
    ):
        np.savez("batch.npz", **{"x": np.full((5, 8), 0.5), "adj.logits": adjoint})
        done = run("analyze", "lossless.yaml", "--data", "batch.npz", "--batch", "2", "--seed-input")
        assert done.code == (2 if message else 0)
        assert message in done.err


def test_a_loss_that_overflows_is_said_and_nothing_warns(run: Run) -> None:
    Path("huge.yaml").write_text(DEEP.replace("sigmoid", "relu") + "init: {weight: {kind: normal, sd: 1e30}}\n")
    done = run("analyze", "huge.yaml")
    assert done.code == 0
    assert [line for line in done.err.splitlines() if not line.startswith("note: ")] == []
    assert "note: the measured loss is not finite" in done.err
    assert "verdict: exploding (" in done.out


def test_a_loss_without_a_gradient_is_dead(run: Run) -> None:
    Path("sure.yaml").write_text(DEEP.replace("classes: 3", "classes: 1").replace("units: 3", "units: 1"))
    assert "verdict: dead (observed), the loss sends no gradient" in run("analyze", "sure.yaml").out


def test_check_names_operators_without_a_gradient_and_takes_data(run: Run) -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
    m (float[N, S, 2] x) => (float[N, S, 2] y) <float[2, 2] w = {1, 0, 0, 1}, int64 k = {0}>
    { z = MatMul(x, w) s = SequenceConstruct(z) y = SequenceAt(s, k) }""")
    onnx.save(model, "top.onnx")
    done = run("check", "top.onnx")
    assert (done.code, done.out) == (2, "")
    assert "--data FILE.npz" in done.err
    np.savez("batch.npz", x=np.ones((5, 4, 2)))
    done = run("check", "top.onnx", "--data", "batch.npz")
    assert done.code == 0
    assert "no gradient: SequenceAt (node '/SequenceAt/2'): a sequence of tensors has no adjoint" in done.out


@pytest.mark.parametrize("view", ["forward", "butterfly", "depth", "activations"])
def test_draw_svg_to_a_file_and_to_stdout(run: Run, view: str) -> None:
    written = run("draw", "deep.yaml", "--view", view, "-o", "picture.svg")
    assert (written.code, written.out, written.err) == (0, "", "wrote picture.svg\n")
    assert ElementTree.parse("picture.svg").getroot().tag.endswith("svg")
    streamed = run("draw", "deep.yaml", "--view", view, "-o", "-")
    assert (streamed.code, streamed.err, streamed.raw) == (0, "", Path("picture.svg").read_bytes())


def test_draw_takes_the_format_from_option_or_ending(run: Run) -> None:
    assert run("draw", "deep.yaml", "-o", "a.png").code == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert run("draw", "deep.yaml", "-f", "dot").err == "wrote out/deep.gv\n"
    assert Path("out/deep.gv").read_text().startswith("digraph")
    assert run("draw", "deep.yaml", "--view", "depth", "-f", "pdf", "-o", "-").raw.startswith(b"%PDF")
    assert (refused := run("draw", "deep.yaml", "-o", "a.bmp")).code == 2
    assert "no format ends in 'bmp'; name one with -f: svg, png, pdf, dot" in refused.err
    assert "a chart is no graph" in run("draw", "deep.yaml", "--view", "depth", "-f", "dot").err


def test_run(run: Run) -> None:
    done = run("run", "deep.yaml", "--batch", "4", "--provider", "cpu", "-o", "gradients.npz")
    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "wrote gradients.npz\n")
    assert lines[0].startswith("loss ")
    assert lines[0].endswith(" on cpu")
    gradients = np.load("gradients.npz")
    norms = json.loads(run("run", "deep.yaml", "--batch", "4", "--json").out)["gradient_norms"]
    assert sorted(gradients.files) == sorted(f"grad.{name}" for name in norms)
    for name, norm in norms.items():
        assert norm == pytest.approx(np.linalg.norm(gradients[f"grad.{name}"]), rel=1e-5)
    assert len(lines) == 1 + len(norms)


def test_run_tells_the_parts_of_a_loss(run: Run) -> None:
    text = Path("shallow.yaml").read_text()
    Path("parts.yaml").write_text(text + "penalty: {l2: 0.5}\n")
    lines = run("run", "parts.yaml", "--provider", "cpu").out.splitlines()
    total, *parts = [float(line.split()[1]) for line in lines[:3]]
    assert [line.split()[0] for line in lines[:3]] == ["loss", "loss/cross_entropy", "loss/penalty"]
    assert total == pytest.approx(sum(parts), rel=1e-4)
    document = json.loads(run("run", "parts.yaml", "--provider", "cpu", "--json").out)
    assert list(document["parts"].values()) == pytest.approx(parts, rel=1e-4)


def test_run_to_stdout_writes_the_gradients_alone(run: Run) -> None:
    done = run("run", "deep.yaml", "--batch", "4", "-o", "-")
    assert (done.code, done.err) == (0, "")
    assert done.raw.startswith(b"PK")
    assert "grad.logits/weight" in np.load(io.BytesIO(done.raw)).files


def test_a_parameter_may_not_have_a_gradient_s_name(run: Run) -> None:
    Path("named.yaml").write_text(DEEP.replace("layers:\n", "layers:\n  - {kind: dense, name: grad.logits, units: 8}\n", 1))
    done = run("run", "named.yaml")
    assert (done.code, done.out) == (2, "")
    assert "'grad.logits/weight', which is to be the gradient of 'logits/weight'; rename it" in done.err


def test_report(run: Run) -> None:
    done = run("report", "deep.yaml", "-o", "page")
    assert done.code == 0
    assert done.out.startswith("deep.yaml: vanishing (")
    written = {path.name for path in Path("page").iterdir()}
    assert {f"wrote page/{name}" for name in written} == set(done.err.splitlines())
    pictures = {"deep.svg", "deep.butterfly.svg", "deep.depth.svg", "deep.activations.svg", "deep.gv", "deep.butterfly.gv"}
    assert written == {"deep.html", "deep.json", "deep.onnx", "deep.grad.onnx", *pictures}
    assert json.loads(Path("page/deep.json").read_text())["schema"] == 1


def test_onnx_files_are_taken_too(run: Run) -> None:
    run("compile", "shallow.yaml")
    for command in (["check"], ["analyze", "--tiers", "expected"], ["draw", "-o", "-"], ["report"], ["compile"]):
        done = run(command[0], "out/shallow.onnx", *command[1:])
        assert done.code == 0, done.err
    assert "has no loss, so it has no gradient" in run("run", "out/shallow.onnx").err


def test_doctor_and_schema(run: Run) -> None:
    doctor = run("doctor")
    assert doctor.code == 0
    for word in ("onnxruntime", "providers       ", "graphviz-pure", "operators       "):
        assert word in doctor.out
    assert json.loads(run("schema").out)["title"] == "vgcompile model"
    assert json.loads(run("schema", "analysis").out) == json_schema()


# exit codes and messages


@pytest.mark.parametrize("command", ["check", "analyze"])
def test_findings_fail_only_when_asked(run: Run, command: str) -> None:
    assert run(command, "deep.yaml").code == 0
    failed = run(command, "deep.yaml", "--fail-on", "dead,vanishing")
    assert failed.code == 1
    assert "deep.yaml: vanishing: hidden/1/dense, " in failed.out + failed.err
    assert run(command, "deep.yaml", "--fail-on", "exploding").code == 0
    assert run(command, "shallow.yaml", "--fail-on", "vanishing").code == 0
    unknown = run(command, "deep.yaml", "--fail-on", "vanish")
    assert (unknown.code, unknown.err) == (2, "--fail-on 'vanish': did you mean 'vanishing'?\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "absent.yaml"], "absent.yaml: no such file; give a YAML model or an .onnx file\n"),
        (["check", "deep.yaml", "--loss", "y"], "--loss and --output name values of an .onnx file"),
        (["analyze", "deep.yaml", "--tiers", "sound,measred"], "--tiers 'measred': did you mean 'measured'?\n"),
        (["analyze", "deep.yaml", "--data", "absent.npz"], "absent.npz: no such data file\n"),
        (["analyze", "deep.yaml", "--seed-input"], "--seed-input takes the adjoints of the outputs from --data FILE.npz"),
        (["analyze", "deep.yaml", "--batch", "0"], "Invalid value for '--batch'"),
        (["draw", "deep.yaml", "--engine", "no-such-engine"], "--engine names 'no-such-engine', which is no program here"),
        (["compile", "deep.yaml", "-o", "deep.yaml"], "cannot write deep.yaml/deep.onnx: "),
        (["check", "."], ".: a folder; give a YAML model or an .onnx file\n"),
        (["analyze", "deep.yaml", "--tiers", ","], "--tiers names none; it takes sound,expected,measured\n"),
        (["analyze", "deep.yaml", "--batch", "100000000000000"], "not enough memory: "),
        (["run", "deep.yaml", "-o", "deep.yaml/gradients.npz"], "cannot write deep.yaml/gradients.npz: "),
        (["report", "deep.yaml", "-o", "-"], "-o -: there are several files to write; name a folder for them\n"),
        (
            ["report", "deep.yaml", "-o", "a.html"],
            "-o a.html: there are several files to write; name a folder for them, a for one\n",
        ),
        (
            ["compile", "deep.yaml", "-o", "a.onnx"],
            "-o a.onnx: there are several files to write; name a folder for them, a for one\n",
        ),
        (["analyse", "deep.yaml"], "No such command 'analyse'"),
    ],
)
def test_errors_of_the_user(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err


def test_complaints_come_one_a_line_with_their_place(run: Run) -> None:
    Path("bad.yaml").write_text(DEEP.replace("units: 3", "unit: 3").replace("kind: cross_entropy", "kind: cros_entropy"))
    done = run("check", "bad.yaml")
    assert done.code == 2
    lines = done.err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("bad.yaml:") for line in lines)
    assert any(line.startswith("bad.yaml:11:") for line in lines)


def test_our_own_mistakes_end_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(vgcompile.compiler, "open_network", broken)
    done = run("check", "deep.yaml")
    assert done.code == 3
    assert done.err == "internal error: ZeroDivisionError: float division by zero; run with --debug for a traceback to report\n"
    with pytest.raises(ZeroDivisionError):
        run("check", "deep.yaml", "--debug")


def test_a_violated_bound_ends_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from vgcompile.analysis.result import Mismatch, SelfCheck

    honest = vgcompile.analysis.analyze

    def doctored(*arguments: object, **options: object) -> vgcompile.analysis.Analysis:
        found = SelfCheck(violations=(Mismatch("/a#0", "measured 10^1.0, proved at most 10^0.5"),))
        return replace(honest(*arguments, **options), self_check=found)  # type: ignore[arg-type]

    monkeypatch.setattr(vgcompile.analysis, "analyze", doctored)
    done = run("analyze", "shallow.yaml", "--json")
    assert done.code == 3
    assert json.loads(done.out)["self_check"]["violations"]
    assert done.err == "/a#0: measured 10^1.0, proved at most 10^0.5\n"


def test_an_interrupt_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vgcompile.compiler, "open_network", interrupted)
    assert run("analyze", "deep.yaml").code == 130


# files


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder" / "file"
    write_atomically(target, b"first")
    assert target.read_bytes() == b"first"
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert target.stat().st_mode == plain.stat().st_mode

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_atomically(target, b"second")
    assert target.read_bytes() == b"first"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


# doors


@pytest.mark.parametrize("door", [["cli.py"], ["-m", "vgcompile"]])
def test_other_doors_lead_to_the_same_command(door: list[str]) -> None:
    done = subprocess.run([sys.executable, *door, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"vgcompile {vgcompile.__version__}\n"
    failed = subprocess.run(
        [sys.executable, *door, "check", "absent.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2


def test_a_complaint_comes_before_anything_heavy_is_loaded() -> None:
    """An alias bomb is refused in the time that reading takes; what only a sound model needs is not imported for it."""
    bomb = Path(__file__).parent / "cases" / "spec" / "bomb.yaml"
    script = f"""
import sys
from vgcompile.cli import main
sys.argv = ["vgcompile", "check", {str(bomb)!r}]
try:
    main()
except SystemExit as ended:
    assert ended.code == 2
assert not {{"onnx", "onnx_ir", "onnxruntime", "scipy", "matplotlib"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "more than 200,000 values" in done.stderr


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("vgcompile.cli._run", lambda arguments: __import__("no_such_package"))
    assert main(["doctor"]) == 2
    assert "the package 'no_such_package' is not installed here" in capsys.readouterr().err
