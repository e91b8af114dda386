"""Makes digits.npz from scikit-learn's copy of the UCI optical digits: ``python models/data/make_digits.py``.

    x      float32 [1797, 64]        grey values, scaled from 0 ... 16 to 0 ... 1
    image  float32 [1797, 1, 8, 8]   the same as pictures
    y      int64   [1797]            the digit

Same bytes on every run: the archive's members carry a fixed date.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

DATE = (1998, 7, 1, 0, 0, 0)  # the data set's donation


def write_npz(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """``np.savez_compressed`` without the clock."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", DATE)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content.getvalue(), compresslevel=9)


def digits() -> dict[str, np.ndarray[Any, Any]]:
    x, y = load_digits(return_X_y=True)
    scaled = np.ascontiguousarray(x, np.float32) / np.float32(16.0)
    return {"x": scaled, "image": scaled.reshape(-1, 1, 8, 8), "y": y.astype(np.int64)}


if __name__ == "__main__":
    write_npz(Path(__file__).with_name("digits.npz"), digits())
