"""The floors of the house: a module imports only from floors below its own, and ``--help`` wakes none that computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter import cli

ROOT = Path(__file__).parent.parent
HEAVY = {
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "networkx",
    "scipy",
    "pydantic",
    "rich",
    "yaml",
    "jinja2",
    "matplotlib",
    "sympy",
}
OF_TYPER = {"pydantic"}  # Typer itself imports it as soon as it looks at a command's options


def test_imports_go_downwards() -> None:
    assert cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == cli.EXIT_STATUS_SUCCESS


@pytest.mark.parametrize(
    ("arguments", "said", "allowed"),
    [
        (["--help"], "Usage: vgcompile [OPTIONS] COMMAND", set()),
        (["--version"], "vgcompile 0", set()),
        (["analyze", "--help"], "Usage: vgcompile analyze [OPTIONS]", OF_TYPER),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str], said: str, allowed: set[str]) -> None:
    program = f"import sys; from vgcompile.cli import main; main({arguments}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stderr.split()) <= allowed
    assert said in done.stdout


def test_public_names_are_there() -> None:
    import vgcompile

    assert all(getattr(vgcompile, name) is not None for name in vgcompile.__all__)
