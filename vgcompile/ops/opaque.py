"""Operators through which nothing flows: shapes, counts, indices, tests, texts and random draws."""

from __future__ import annotations

import numpy as np

from vgcompile.interval import WHOLE, interval
from vgcompile.ops.families import Carried, blocked
from vgcompile.ops.op import INTERNAL, Body, sample

NUMBER = "its output is a number of elements and does not change with their values"
INDEX = "its output is an index: a step, whose slope is 0 wherever it has one"
TEST = "its output is a truth value"
SHAPE_ONLY = "it reads only the shape of its input"
NO_INPUT = "its output does not depend on any value"
DRAW = "its output is drawn at random"
TEXT = "texts have no slope"
ASKED = "it is there to let nothing flow"

MATRIX = (sample(("N", 3)),)

Constant = blocked("Constant", "A value that stands in the node itself.", NO_INPUT, samples=(sample(value_float=1.0),))
Shape = blocked("Shape", "The extents of x.", NUMBER, by_shape=True, samples=(*MATRIX, sample((2, 3), start=1)))
Size = blocked("Size", "The number of elements of x.", NUMBER, by_shape=True, samples=MATRIX)
ConstantOfShape = blocked("ConstantOfShape", "One value, repeated to a shape.", NO_INPUT, samples=(sample(np.array([2, 3])),))
EyeLike = blocked(
    "EyeLike", "Ones on a diagonal, in the shape of x.", SHAPE_ONLY, range=lambda case: interval(0.0, 1.0), samples=MATRIX
)

ArgMax = blocked("ArgMax", "The index of the greatest element along an axis.", INDEX, samples=MATRIX)
ArgMin = blocked("ArgMin", "The index of the least element along an axis.", INDEX, samples=MATRIX)
NonZero = blocked("NonZero", "The indices of the elements that are not 0.", INDEX, samples=(sample((2, 3)),))
Hardmax = blocked(
    "Hardmax",
    "1 at the first greatest element along an axis, 0 elsewhere.",
    INDEX,
    range=lambda case: interval(0.0, 1.0),
    samples=MATRIX,
)

IsNaN = blocked(
    "IsNaN", "Whether x is not a number.", TEST, numpy=np.isnan, range=lambda case: interval(0.0, 1.0), samples=MATRIX
)
IsInf = blocked("IsInf", "Whether x is infinite.", TEST, range=lambda case: interval(0.0, 1.0), samples=MATRIX)

StopGradient = blocked(
    "StopGradient",
    "x, as a constant: written as a copy in a file, where no standard operator stops a gradient.",
    ASKED,
    domain=INTERNAL,
    numpy=lambda x: x,
    range=lambda case: case.ranges[0] or WHOLE,
    moments=Carried(),
    bodies=(Body("copy", lambda op, x: op.Identity(x)),),
    infer=lambda x: x,
    samples=(*MATRIX, sample(())),
)

RandomNormalLike = blocked("RandomNormalLike", "Normal draws in the shape of x.", DRAW, random=True, samples=MATRIX)
RandomUniformLike = blocked(
    "RandomUniformLike",
    "Uniform draws in the shape of x.",
    DRAW,
    random=True,
    range=lambda case: interval(case.attributes["low"], case.attributes["high"]),
    samples=MATRIX,
)
Bernoulli = blocked(
    "Bernoulli",
    "1 with probability x, else 0.",
    DRAW,
    random=True,
    range=lambda case: interval(0.0, 1.0),
    samples=(sample(("N", 3), domain=(0.0, 1.0)),),
)


RandomNormal = blocked("RandomNormal", "Normal draws in a given shape.", DRAW, random=True, samples=(sample(shape=[2, 3]),))
RandomUniform = blocked("RandomUniform", "Uniform draws in a given shape.", DRAW, random=True, samples=(sample(shape=[2, 3]),))
Multinomial = blocked(
    "Multinomial", "Classes drawn by the logarithms of their probabilities.", DRAW, random=True, samples=(sample((2, 3)),)
)

NonMaxSuppression = blocked(
    "NonMaxSuppression",
    "The indices of the boxes of highest score that overlap little.",
    INDEX,
    samples=(sample((1, 2, 4), (1, 1, 2), np.array(1)),),
)
TfIdfVectorizer = blocked(
    "TfIdfVectorizer",
    "Weighted counts of sequences of numbers or words.",
    NUMBER,
    samples=(
        sample(
            np.array([1, 2, 1, 2]),
            mode="TF",
            min_gram_length=1,
            max_gram_length=1,
            max_skip_count=0,
            ngram_counts=[0],
            ngram_indexes=[0, 1],
            pool_int64s=[1, 2],
        ),
    ),
)
ImageDecoder = blocked(
    "ImageDecoder",
    "The pixels, bytes, of a compressed picture.",
    "its input is a stream of bytes",
    samples=(sample(np.zeros(8, np.uint8)),),
)

StringConcat = blocked("StringConcat", "Texts joined.", TEXT)
StringNormalizer = blocked("StringNormalizer", "Texts in one case, without stop words.", TEXT)
StringSplit = blocked("StringSplit", "Texts cut at a delimiter, and the number of parts.", TEXT)
RegexFullMatch = blocked("RegexFullMatch", "Whether a text as a whole matches a pattern.", TEST)

ROWS = (
    *(Constant, Shape, Size, ConstantOfShape, EyeLike, ArgMax, ArgMin, NonZero, Hardmax, IsNaN, IsInf, StopGradient),
    *(RandomNormalLike, RandomUniformLike, RandomNormal, RandomUniform, Bernoulli, Multinomial),
    *(NonMaxSuppression, TfIdfVectorizer, ImageDecoder, StringConcat, StringNormalizer, StringSplit, RegexFullMatch),
)
