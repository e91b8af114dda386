"""The domains that bounds are intersected from, by name: what each keeps stands in docs/theory.md."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from vgcompile.errors import UserError, nearest

Domain = Literal["product", "zonotope", "ellipsoid", "centre"]
PRODUCT: Domain = "product"  # of factors over boxes, with the triangle inequality at sums: all others start from it
ZONOTOPE: Domain = "zonotope"
ELLIPSOID: Domain = "ellipsoid"
CENTRE: Domain = "centre"
DOMAINS: tuple[Domain, ...] = (PRODUCT, ZONOTOPE, ELLIPSOID, CENTRE)


def chosen(names: Iterable[str]) -> tuple[Domain, ...]:
    """These domains in their own order, ``product`` always among them.

    Raises UserError for a name that is none, and where nothing is named.
    """
    asked = set(names)
    if not asked:
        raise UserError(f"--domains names none; it takes {', '.join(DOMAINS)}")
    for name in sorted(asked - set(DOMAINS)):
        raise UserError(f"--domains {name!r}: " + (nearest(name, DOMAINS) or f"it takes {', '.join(DOMAINS)}"))
    return tuple(domain for domain in DOMAINS if domain in asked or domain == PRODUCT)
