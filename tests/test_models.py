"""Every model in models/: what its papers and libraries say of its size, and that it can be read by a person."""

from __future__ import annotations

from pathlib import Path

import pytest

import vgcompile
from benchmarks.models.references import REFERENCES
from vgcompile.spec import load

MODELS = Path(__file__).parents[1] / "models"
LONGEST = 80  # lines


@pytest.mark.parametrize("name", REFERENCES)
def test_parameters_are_as_many_as_published(name: str) -> None:
    """Counted without a draw."""
    network = vgcompile.open_network(MODELS / f"{name}.yaml")
    assert sum(network.sizes().values()) == REFERENCES[name].published


def test_the_documentation_states_every_count() -> None:
    text = (MODELS.parent / "docs" / "models.md").read_text()
    assert [name for name, r in REFERENCES.items() if f"| `{name}` | {r.published:,} | {r.source} |" not in text] == []


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_model_says_what_it_shows_and_is_short(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[1].startswith("# ")
    assert len(lines) <= LONGEST


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_variant_is_a_model(path: Path) -> None:
    spec = load(path)
    for name in spec.document.variants:
        assert load(path, variant=name).layers
