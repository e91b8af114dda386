"""Folders of pictures, one sub-folder for each class. A picture is decoded when its sample is wanted.

Pillow reads them. It is no dependency of its own: matplotlib, which draws the charts, brings it.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vgcompile.errors import DataError
from vgcompile.runtime.data.samples import Array, Samples, absent
from vgcompile.spec.data import Images

_MODES = {"gray": "L", "rgb": "RGB"}
# What decoders raise for a broken picture; a picture of too many pixels is a warning first.
_BROKEN = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, TypeError, KeyError, IndexError, OverflowError, MemoryError)


def images(folder: Path, form: Images) -> Mapping[str, Samples]:
    """``image`` [N, channels, H, W], float32 from 0 to 1, resized bilinearly with antialiasing, and ``label`` [N], int64.

    Raises DataError for a folder that holds no classes, a class without pictures, and a file that is no picture.
    """
    classes = _classes(folder)
    pictures = [(path, number) for number, name in enumerate(classes) for path in _pictures(folder / name)]
    paths = [path for path, _ in pictures]
    labels = np.array([number for _, number in pictures], np.int64)
    channels = len(_MODES[form.color])

    def place(row: int) -> str:
        return str(paths[row])

    def take(rows: Array) -> Array:
        taken = np.empty((len(rows), channels, *form.size), np.float32)
        for at, row in enumerate(rows):
            taken[at] = _decoded(paths[row], form)
        return taken

    shape = (len(paths), channels, *form.size)
    return {
        "image": Samples(f"{folder}: the pictures", shape, np.dtype(np.float32), take, place),
        "label": Samples.of(labels, f"{folder}: {len(classes)} classes", place),
    }


def _classes(folder: Path) -> Sequence[str]:
    """The sub-folders in the order of their names."""
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        raise DataError(absent(folder, "folder of pictures")) from None
    except OSError as error:
        raise DataError(f"{folder}: not a folder of pictures that can be read: {error.strerror}") from None
    names = [entry.name for entry in found if entry.is_dir() and not entry.name.startswith(".")]
    if not names:
        raise DataError(f"{folder}: holds no sub-folders; put the pictures of each class into one of its own")
    return names


def _pictures(folder: Path) -> Iterator[Path]:
    """All files below a class's folder, in the order of their paths; hidden ones are no pictures."""
    known = Image.registered_extensions()
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise DataError(f"{folder}: holds no pictures; remove the folder, or add some")
    for path in paths:
        if path.suffix.lower() not in known:
            raise DataError(f"{path}: no picture by its ending; remove it, or hide it with a dot before its name")
        yield path


def _decoded(path: Path, form: Images) -> Array:
    """[channels, H, W], from 0 to 1."""
    height, width = form.size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path) as picture:
                mode = picture.mode
                if not mode.startswith(("I", "F")):
                    drawn = picture.convert(_MODES[form.color]).resize((width, height), Image.Resampling.BILINEAR)
                    pixels = np.asarray(drawn, np.float32) / np.float32(255.0)
                    return pixels.reshape(height, width, -1).transpose(2, 0, 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels; shrink the picture") from None
    except (*_BROKEN, struct.error):
        raise DataError(f"{path}: not a picture that can be decoded; save it again, or remove it") from None
    raise DataError(f"{path}: its pixels have more than 8 bits (mode {mode}); save it with 8 bits for each color")
