"""VG7: what is wrong with the data that a model names."""

from __future__ import annotations

from vgcompile.rules.rule import error

UNFIT_DATA = error(
    "VG701",
    "unfit-data",
    "A file of data is not there or cannot be read, lacks an array or a column, or holds what its input does not take: another "
    "shape, a cell that is no number, a class beyond those that are declared.",
)

RULES = (UNFIT_DATA,)
