"""The fields of a model file, all but the layers' own."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from vgcompile.layers import AnyLayer
from vgcompile.layers.initialization import InitDefaults
from vgcompile.layers.layer import Name
from vgcompile.layers.loss import Losses
from vgcompile.layers.part import Finite, NotEmpty, Part, Positive, Seed
from vgcompile.layers.pattern import Pattern
from vgcompile.layers.penalty import Penalties
from vgcompile.spec.data import Data
from vgcompile.spec.distributions import InputDistribution, conflict


class InputFields(Part):
    """An input of the network. Its first dimension is the batch, written as a name."""

    shape: Annotated[tuple[Positive | Name, ...], NotEmpty]
    type: Literal["float32", "int64"] = "float32"
    range: tuple[Finite, Finite] | None = Field(
        default=None, description="[lo, hi]: every element lies in there, and the bounds hold for all that do"
    )
    distribution: InputDistribution | None = Field(
        default=None,
        description="what it is drawn from where no data are given for it: by default uniform over the range, classes, or normal",
    )
    classes: Positive | None = Field(default=None, description="of an int64 input: its values are 0 ... classes - 1")

    @field_validator("shape")
    @classmethod
    def _batch_first(cls, shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
        if isinstance(shape[0], int):
            raise ValueError("the first dimension is the batch: write a name for it, such as [batch, 64]")
        return shape

    @field_validator("range")
    @classmethod
    def _ordered(cls, given: tuple[float, float] | None) -> tuple[float, float] | None:
        if given is not None and given[0] > given[1]:
            raise ValueError("range is [lo, hi] with lo not above hi")
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.type == "int64") != (self.classes is not None):
            raise ValueError("type: int64 and classes: go together")
        if found := conflict(self.distribution, self.classes, self.range):
            raise ValueError(found)
        return self


class WeightsFile(Part):
    """First values from a file: .npz, .safetensors or .onnx."""

    file: str = Field(description="its path, from the model file's folder")
    map: dict[str, str | None] = Field(
        default_factory=dict,
        description="name or pattern in the file -> name here, each * standing for what the pattern's did; null: unused",
    )
    transpose: tuple[Pattern, ...] = Field(
        default=(), description="patterns over the parameters whose matrices the file has turned"
    )
    strict: bool = Field(default=True, description="false: parameters and tensors without a counterpart are no mistake")


def _one_batch(inputs: dict[str, InputFields]) -> dict[str, InputFields]:
    batches = list(dict.fromkeys(str(fields.shape[0]) for fields in inputs.values()))
    if len(batches) > 1:
        raise ValueError(f"all inputs share one batch: found the first dimensions {' and '.join(batches)}")
    return inputs


class TypedParameter(Part):
    """A parameter of a model or a block, with a type, a default and the values that it may have."""

    type: Literal["int", "float", "bool", "str", "list"] | None = None
    default: Any = Field(default=None, description="required where absent")
    choices: tuple[Any, ...] | None = None
    description: str | None = None


Parameters = dict[Name, Any]


class BlockDefinition(Part):
    """Layers under a kind of their own, with parameters that expressions inside read."""

    params: Parameters = Field(default={}, description="by name: a default, a type (int, float, bool, str, list), or both")
    description: str | None = None
    layers: Annotated[tuple[dict[str, Any], ...], NotEmpty]


class Document(Part):
    """A network: what goes in, what is done to it, and what it is judged by."""

    name: Name | None = Field(default=None, description="the file's name where absent")
    include: Annotated[tuple[str, ...], NotEmpty] | None = Field(
        default=None, description="files, relative to this one, whose blocks, params and other fields are added"
    )
    params: Parameters = Field(default={}, description="values that expressions read: ${width}; --set width=32 replaces one")
    variants: dict[Name, dict[str, Any]] = Field(
        default={}, description="by name: other values, by their path; --variant NAME takes them"
    )
    blocks: dict[Name, BlockDefinition] = Field(default={}, description="kinds of layers of one's own")
    inputs: Annotated[dict[Name, InputFields], NotEmpty, AfterValidator(_one_batch)]
    init: InitDefaults = Field(default_factory=InitDefaults.model_construct)
    layers: Annotated[tuple[AnyLayer, ...], NotEmpty]
    loss: Losses = Field(
        default=(),
        description="one, or a list whose weighted sum is taken; without one the outputs are the layers that nothing reads",
    )
    penalty: Penalties = Field(default=(), description="what parameters cost by their size, added to the loss")
    data: Data | None = None
    weights: WeightsFile | None = Field(default=None, description="first values from a file, in the place of draws")
    seed: Seed = 0

    @model_validator(mode="after")
    def _penalized(self) -> Self:
        if self.penalty and not self.loss:
            raise ValueError("a penalty is added to a loss: state loss:, or drop penalty:")
        return self
