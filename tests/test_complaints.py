"""Complaints as people and programs get them: rules with their examples, spans, notes, warnings taken back, the formats."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pytest

from tests.test_cli import Run, run  # noqa: F401  a fixture
from tests.test_spec import CASES, said
from vgcompile.analysis import Options, analyze
from vgcompile.build import build
from vgcompile.cli.findings import complaints
from vgcompile.cli.formats import as_github, as_json, as_sarif
from vgcompile.cli.snippet import show
from vgcompile.errors import Complaint, Mark, Note, SpecError
from vgcompile.rules import CATALOGUE
from vgcompile.rules.rule import Rule
from vgcompile.spec import load, loads

SARIF = json.loads((Path(__file__).parent / "cases" / "sarif" / "sarif-schema-2.1.0.json").read_text())
ROOMS = Path(__file__).parents[1] / "vgcompile" / "rules"
WITHOUT_EXAMPLE = {"VG000", "VG001", "VG002", "VG608", "VG701"}  # no rule, no text, or about the command line or a file of data
FILE = "model.yaml"
INPUTS = "inputs: {x: {shape: [batch, 4]}}\n"


def judged(text: str) -> Sequence[Complaint]:
    try:
        return build(loads(text, FILE)).warnings
    except SpecError as error:
        return error.complaints


def found_by(rule: Rule, text: str) -> list[Complaint]:
    """By the reader and, of a rule about gradients, by an analysis with its options."""
    said = list(judged(text))
    return said + complaints(analyze(build(loads(text, FILE)), Options(**rule.analysed)).findings) if rule.analysed else said


def shown(text: str, complaints: Sequence[Complaint] | None = None) -> str:
    stream = io.StringIO()
    show(judged(text) if complaints is None else complaints, stream, {FILE: text})
    return stream.getvalue()


# rules


@pytest.mark.parametrize("rule", CATALOGUE.values(), ids=lambda rule: rule.code)
def test_the_failing_example_has_that_fault_and_the_repaired_one_none(rule: Rule) -> None:
    assert bool(rule.failing) == bool(rule.repaired) == (rule.code not in WITHOUT_EXAMPLE)
    if rule.failing:
        assert {complaint.rule.code for complaint in found_by(rule, rule.failing)} == {rule.code}
        assert found_by(rule, rule.repaired) == []


def test_codes_and_names_are_of_one_form_and_stand_once() -> None:
    stated = re.findall(r'"(VG\d+)",', "".join(path.read_text() for path in ROOMS.glob("*.py")))
    assert sorted(stated) == sorted(CATALOGUE)
    assert len({rule.name for rule in CATALOGUE.values()}) == len(CATALOGUE)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name) and rule.meaning.endswith(".") for rule in CATALOGUE.values())


def test_every_complaint_of_the_corpus_has_a_rule_and_most_rules_a_case() -> None:
    codes = Counter(complaint.rule.code for case in CASES for complaint in said(case))
    assert "VG000" not in codes
    of_reading = {rule.code for rule in CATALOGUE.values() if not rule.analysed}
    assert of_reading - set(codes) <= {"VG000", "VG001", "VG608", "VG701"}
    assert sum(1 for case in CASES if said(case)) >= 60


def test_explain(run: Run) -> None:  # noqa: F811
    listed = run("explain")
    assert [line.split()[0] for line in listed.out.splitlines()] == list(CATALOGUE)
    done = run("explain", "vg302")
    assert done.out.startswith("VG302 unequal-shapes (error)\n")
    assert "error[VG302]: a sum needs equal shapes" in done.out
    assert "^~~~" in done.out
    assert run("explain", "unequal-shapes").out == done.out
    wrong = run("explain", "VG303x")
    assert (wrong.code, wrong.err) == (2, "there is no rule 'VG303x'; did you mean 'VG303'?\n")


# the text form


def test_a_complaint_shows_its_place_and_those_of_what_it_speaks_of() -> None:
    text = INPUTS + "layers:\n  - {kind: dense, name: wide, units: 8}\n  - {kind: dense, name: slim, from: x, units: 2}\n"
    text += "  - {kind: add, from: [wide, slim]}  # joined\n"
    assert shown(text) == (
        "model.yaml:5:5: error[VG302]: a sum needs equal shapes: "
        "'wide' (line 3) gives [batch, 8], 'slim' (line 4) gives [batch, 2]\n"
        "  3 |   - {kind: dense, name: wide, units: 8}\n"
        "    |     ----------------------------------- 'wide' is [batch, 8]\n"
        "  4 |   - {kind: dense, name: slim, from: x, units: 2}\n"
        "    |     -------------------------------------------- 'slim' is [batch, 2]\n"
        "  5 |   - {kind: add, from: [wide, slim]}  # joined\n"
        "    |     ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~\n"
    )


def test_a_copy_says_which_it_is() -> None:
    layers = "[{kind: add, from: [input, x]}, {kind: dense, units: 3, activation: relu}]"
    plain = shown(INPUTS + f"layers:\n  - {{kind: block, name: shrinking, repeat: 3, layers: {layers}}}\n")
    assert "    = note: copy 2 of block 'shrinking' at line 3\n" in plain
    layers = layers.replace("3", '"${width + i}"')
    own = f"blocks:\n  res: {{params: {{width: 3}}, layers: {layers}}}\n"
    written = shown(own + INPUTS + "layers:\n  - {kind: res, repeat: 3}\n")
    assert "expanded from block 'res' at line 2" in written


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("seed: 1\nseed: 2\n", "  1 | seed: 1\n    | ---- first written here\n"),
        (INPUTS + "layers:\n  - {kind: relu, name: a}\n  - {kind: tanh, name: a}\n", "- first written here\n"),
        ("a: 'open\nb: 1\n", "  1 | a: 'open\n    |    - it begins here\n"),
    ],
)
def test_what_stands_elsewhere_is_shown(text: str, note: str) -> None:
    assert note in shown(text)


@pytest.mark.parametrize(
    ("line", "mark", "under"),
    [
        ("units: 20", Mark(FILE, 1, 8, 10), "       ^~"),
        ("kind: dense  # first", Mark(FILE, 1, 1), "^~~~~~~~~~~"),
        ("日本: 20", Mark(FILE, 1, 5, 7), "      ^~"),
        ("\tunits", Mark(FILE, 1, 1, 2), "^~~~"),
        ("a", Mark(FILE, 1, 2), " ^"),
        ("x" * 300 + "here", Mark(FILE, 1, 301, 305), "   " + " " * 40 + "^~~~"),
        ("n: \x1b[31mred", Mark(FILE, 1, 4, 12), "   ^~~~~~~~"),
    ],
)
def test_carets_stand_under_what_is_meant(line: str, mark: Mark, under: str) -> None:
    _, source, carets = shown(line, [Complaint(mark, "wrong")]).splitlines()
    assert carets == "    | " + under
    assert "\x1b" not in source
    assert len(source) < 140


def test_a_place_without_a_text_is_told_in_words() -> None:
    complaint = Complaint(Mark("gone.yaml", 3), "wrong", notes=(Note("made here", Mark("gone.yaml", 1)),))
    assert shown("", [complaint]) == "gone.yaml:3:1: error: wrong\n    = note: gone.yaml:1:1: made here\n"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    text, said_to = "seed: x\n" + INPUTS + "layers: [{kind: relu}]\n", {}
    for value in ("", "1"):
        monkeypatch.setenv("NO_COLOR", value)
        terminal = Terminal()
        show(judged(text), terminal, {FILE: text})
        said_to[value] = terminal.getvalue()
    assert "\x1b[" in said_to[""]
    assert re.sub(r"\x1b\[[0-9;]*m", "", said_to["1"]) == shown(text)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", said_to["1"])


# warnings

IGNORE = "  # vgcompile: ignore VG506"
TWICE = INPUTS + "layers:\n  - {kind: dense, units: 010}%s\n  - {kind: dense, units: 2}\n"


@pytest.mark.parametrize(
    ("comment", "codes"),
    [
        ("", ["VG506", "VG402"]),
        ("  # vgcompile: ignore VG402", ["VG506"]),
        ("  # a stack: #vgcompile:ignore VG402,VG506", []),
        ("  # vgcompile: ignore VG402 VG506 VG501", ["VG405"]),
        ("  # vgcompile: ignore VG402, VG506: one factor each, all 2 of them", []),
        ("  # vgcompile: ignore", ["VG506", "VG402", "VG405"]),
    ],
)
def test_a_comment_takes_warnings_back(comment: str, codes: list[str]) -> None:
    assert [complaint.rule.code for complaint in judged(TWICE % comment)] == codes


def test_a_comment_is_about_its_own_file(tmp_path: Path) -> None:
    """Line 2 of both files has the same warning; each comment takes back that of its own file alone."""
    block = "blocks:\n  two: {layers: [{kind: dense, units: 4}, {kind: dense, units: 4}]}%s\n"
    head = "include: blocks.yaml\nlayers: [{kind: dense, units: 4}, {kind: dense, units: 4}, {kind: relu}, {kind: two}]%s\n"
    for own, included, left in (("", "", 2), ("", IGNORE, 1), (IGNORE, "", 1), (IGNORE, IGNORE, 0)):
        (tmp_path / "blocks.yaml").write_text(block % included)
        (tmp_path / "model.yaml").write_text(head % own + INPUTS)
        assert len(build(load(tmp_path / "model.yaml")).warnings) == left


def test_warnings_fail_a_strict_check_only(run: Run, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "odd.yaml").write_text(TWICE % "")
    done = run("check", "odd.yaml")
    assert done.code == 0
    assert done.err.startswith("odd.yaml:3:5: warning[VG506]: nothing is between")
    strict = run("check", "odd.yaml", "--strict", "--format", "text")
    assert strict.code == 1
    assert "  3 |   - {kind: dense, units: 010}\n    |                          ^~~\n" in strict.err
    assert run("check", "shallow.yaml", "--strict").code == 0


# formats for programs


def all_complaints() -> list[Complaint]:
    return [complaint for case in CASES for complaint in said(case)]


def test_sarif_is_valid_and_complete() -> None:
    complaints = all_complaints()
    log = json.loads(as_sarif(complaints))
    jsonschema.Draft4Validator(SARIF).validate(log)
    (ran,) = log["runs"]
    assert len(ran["results"]) == len(complaints)
    for result, complaint in zip(ran["results"], complaints, strict=True):
        assert ran["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == complaint.rule.code
        assert result["locations"][0]["physicalLocation"]["region"]["startLine"] == complaint.mark.line
    assert json.loads(as_sarif([]))["runs"][0]["results"] == []


def test_json_says_what_the_line_says() -> None:
    complaints = all_complaints()
    for found, complaint in zip(json.loads(as_json(complaints))["complaints"], complaints, strict=True):
        assert (found["code"], found["severity"]) == (complaint.rule.code, complaint.rule.severity)
        assert f"{found['file']}:{found['line']}:{found['column']}" == str(complaint.mark)
        assert found["message"] + (f"; {found['hint']}" if found["hint"] else "") in str(complaint)


def test_github_commands_are_one_line_each_and_escaped() -> None:
    mark = Mark("a, b: c%.yaml", 3, 5, 9)
    assert as_github([Complaint(mark, "100% wrong\nreally", "mend it", CATALOGUE["VG101"])]) == (
        "::error file=a%2C b%3A c%25.yaml,line=3,col=5,endColumn=9,title=VG101 unknown-field::100%25 wrong%0Areally; mend it"
    )
    lines = as_github(all_complaints()).splitlines()
    assert all(re.fullmatch(r"::(error|warning) file=[^:]*,title=VG\d+ [a-z-]+::.+", line) for line in lines)


@pytest.mark.parametrize("form", ["json", "sarif", "github"])
def test_programs_read_stdout(run: Run, tmp_path: Path, form: str) -> None:  # noqa: F811
    (tmp_path / "bad.yaml").write_text(INPUTS + "layers: [{kind: rleu}]\n")
    done = run("check", "bad.yaml", "--format", form)
    assert (done.code, done.err) == (2, "")
    assert "VG103" in done.out
    missing = run("check", "nowhere.yaml", "--format", form)
    assert (missing.code, missing.err) == (2, "")
    assert "VG001" in missing.out
    good = run("check", "shallow.yaml", "--format", form)
    assert (good.code, "VG" in good.out) == (0, False)
    assert run("check", "deep.yaml", "--format", form, "--fail-on", "vanishing").code == 1
