"""The registry: every architecture by its name."""

from __future__ import annotations

from benchmarks.exports.architectures import attention, audio, generative, pretrained, recurrent, vision
from benchmarks.exports.exporting import Architecture

ROOMS = (vision, recurrent, attention, audio, generative, pretrained)
ARCHITECTURES: dict[str, Architecture] = {entry.name: entry for room in ROOMS for entry in room.ARCHITECTURES}
