"""Starter models: each is complete, in layout, and without a finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from vgcompile.cli import main
from vgcompile.cli.new import starters, title


@pytest.mark.parametrize("name", starters())
def test_a_starter_checks_clean(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.yaml"
    assert main(["new", name, "-o", str(target)]) == 0
    capsys.readouterr()
    assert main(["check", str(target), "--fail-on", "vanishing,exploding,saturated,dead"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("mine: ") and said.out.splitlines()[-1] == "  loss    loss"
    assert said.err == ""
    assert title(starters()[name]).endswith(".")


@pytest.mark.parametrize("name", ["lstm", "gru", "transformer", "gpt"])
def test_a_starter_has_no_warning_and_a_gradient(name: str, tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    assert main(["new", name, "-o", str(target)]) == 0
    assert main(["check", "--strict", str(target)]) == 0
    assert main(["compile", str(target), "-o", str(tmp_path)]) == 0
    assert (tmp_path / "mine.grad.onnx").exists()
    assert main(["analyze", str(target)]) == 0


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "mlp"]) == 0
    assert Path("mlp.yaml").read_text() == starters()["mlp"]
    assert main(["new", "mlp"]) == 2
    assert "mlp.yaml: the file exists; name another one with -o" in capsys.readouterr().err


def test_the_list_and_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(starters())
    assert main(["new", "restnet"]) == 2
    assert "did you mean 'resnet'?" in capsys.readouterr().err
