"""The catalogue of rules: ``CATALOGUE`` maps a code to its rule, assembled here from the rooms and nowhere else.

    VG0  text     the file as YAML                  VG3  shapes   what does not fit together
    VG1  fields   a field's name, type, value       VG4  traps    warnings: read otherwise than it looks
    VG2  wires    names, and who reads whom         VG5  designs  warnings: known not to do what was meant
    VG6  writing  blocks, parameters, expressions,  VG7  data     files of data, and what they hold
                  includes, variants            VG8  gradients  how gradients flow, as an analysis finds

A code is never given to another fault, nor taken away from one.
"""

from __future__ import annotations

from collections.abc import Mapping

from vgcompile.rules import data, designs, fields, gradients, shapes, text, traps, wires, writing
from vgcompile.rules.rule import Rule

CATALOGUE: Mapping[str, Rule] = {
    rule.code: rule for room in (text, fields, wires, shapes, traps, designs, writing, data, gradients) for rule in room.RULES
}
