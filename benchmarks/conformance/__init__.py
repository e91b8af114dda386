"""How many of ONNX's own node tests get a gradient, and whether it is right: a conformance suite for gradient compilers.

cases.py    the set: which node tests are in, which are not and why; the form with a symbolic first axis
running.py  one model in stock ONNX Runtime, whatever the types of its inputs
truth.py    the directional derivatives that a gradient is compared with, in float64
tools.py    the compilers that are judged
verdict.py  a gradient against the truth: right, refused, wrong
workers.py  each case in a process of its own, under a time limit
table.py    the tables
"""
