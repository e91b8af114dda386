"""Mutated models: whatever the text, the answer is a model or complaints, in time and in bounds.

    python -m benchmarks.fuzz --count 100000 --seed 0 --workers 2

Each case is a model of ``models/``, a case of ``tests/cases/spec``, the example of a rule, or a model of random layers
(sampling.py), with a few mutations of its text (text.py) or of its tree (trees.py), what it includes, a variant and settings
(cases.py). It is read, linted and, up to 60 layers, built; what is said of it is written in every format (judging.py). A failure
is any other exception, more than 2 s of the processor, or more than 500 MB of memory; failing cases are kept in a folder, and run
again by their number.
"""
