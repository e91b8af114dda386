"""The field ``data:`` of a model file: where real data are, which part of them is read, and how numbers are prepared."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from vgcompile.layers.layer import Name
from vgcompile.layers.part import Finite, Natural, NotEmpty, Part, Positive, PositiveFloat, Seed

TABLES = {".csv": ",", ".tsv": "\t"}  # what separates the cells
OFFERED = ("image", "label")  # the arrays of an image folder
Column = Annotated[str | Natural, Field(description="a column's name, or its number, from 0")]


class ColumnRange(Part):
    """Columns that stand beside each other, both ends included."""

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True)

    first: Column = Field(alias="from")
    last: Column = Field(alias="to")


def _form(given: object) -> str:
    """What a value was meant as, so that a complaint is about that alone."""
    if isinstance(given, dict | Part):
        return "mapping"
    return "list" if isinstance(given, tuple) else "plain"


_OneOf = Discriminator(_form)
_Several = Annotated[Annotated[Column, Tag("plain")] | Annotated[ColumnRange, Tag("mapping")], _OneOf]
Columns = Annotated[
    Annotated[Column, Tag("plain")]
    | Annotated[ColumnRange, Tag("mapping")]
    | Annotated[tuple[_Several, ...], NotEmpty, Tag("list")],
    _OneOf,
]


class Images(Part):
    """Pictures, one sub-folder for each class. They make two arrays: ``image``, numbers from 0 to 1 of shape [N, channels, H, W],
    and ``label``, the sub-folder's number in the order of names."""

    folder: str = Field(description="relative to the model file's folder")
    size: tuple[Positive, Positive] = Field(description="[H, W] that every picture is resized to")
    color: Literal["gray", "rgb"] = "rgb"


class Split(Part):
    """Samples set apart for validation: the same ones for the same number of samples and seed."""

    validation: Annotated[float, Field(gt=0, lt=1)] = Field(description="the share of the samples")
    seed: Seed = 0


class Shuffle(Part):
    """The order of samples is drawn, not the file's."""

    seed: Seed = 0


class Moments(Part):
    """x becomes (x - mean) / sd: numbers for the whole input, or lists with one number for each entry of axis 1."""

    mean: Finite | Annotated[tuple[Finite, ...], NotEmpty] = 0.0
    sd: PositiveFloat | Annotated[tuple[PositiveFloat, ...], NotEmpty] = 1.0


Normalization = Annotated[Annotated[Literal["standard"], Tag("plain")] | Annotated[Moments, Tag("mapping")], _OneOf]
_Normalizations = Annotated[
    Annotated[Literal["standard"], Tag("plain")] | Annotated[dict[Name, Normalization], Tag("mapping")], _OneOf
]


def _switch(given: object) -> object:
    """``shuffle: true`` is a shuffle of seed 0."""
    return {True: {}, False: None}[given] if isinstance(given, bool) else given


def _one_character(given: str) -> str:
    if len(given) != 1 or given in '"\r\n':
        raise ValueError("what separates cells is one character, no quote and no line end")
    return given


class Data(Part):
    """Real data. What no file gives is drawn from the input's ``distribution:``."""

    file: str | None = Field(default=None, description="an .npz, .csv or .tsv file, relative to the model file's folder")
    files: Annotated[dict[Name, str], NotEmpty] | None = Field(default=None, description="input name -> .npy file")
    images: Images | None = None
    arrays: dict[str, str] | None = Field(
        default=None, description="of an .npz file or an image folder: input name -> array name; the same names where absent"
    )
    columns: dict[str, Columns] | None = Field(
        default=None, description="of a table: input name -> column, or list of columns; the same names where absent"
    )
    categories: dict[str, Annotated[tuple[str, ...], NotEmpty]] = Field(
        default={},
        description="of a table: input name -> what its cells may say, in the order of class numbers; sorted where absent",
    )
    header: bool = Field(default=True, description="of a table: the first row holds the columns' names")
    delimiter: Annotated[str, AfterValidator(_one_character)] | None = Field(
        default=None, description="of a table: what separates cells; a comma in .csv, a tab in .tsv"
    )
    batch: Positive = 64
    scale: PositiveFloat = Field(default=1.0, description="real-valued inputs are multiplied by it")
    normalize: _Normalizations = Field(
        default={},
        description="for each input, after scale: standard (mean 0, sd 1 over the training part, by entry of axis 1), or "
        "mean and sd; standard alone: for all real inputs but the target",
    )
    shuffle: Annotated[Shuffle | None, BeforeValidator(_switch, json_schema_input_type=bool | Shuffle | None)] = None
    split: Split | None = None

    @property
    def tabular(self) -> bool:
        return self.file is not None and PurePath(self.file).suffix.lower() in TABLES

    @field_validator("file")
    @classmethod
    def _no_single_array(cls, file: str | None) -> str | None:
        if file is not None and PurePath(file).suffix.lower() == ".npy":
            raise ValueError("an .npy file holds one array: write files: {INPUT: FILE.npy, ...}")
        return file

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ("file", "files", "images") if getattr(self, name) is not None]
        stated = self.model_fields_set
        if len(given) > 1:
            raise ValueError(f"{' and '.join(f'{name}:' for name in given)} exclude each other: keep one")
        for name in ("columns", "categories", "header", "delimiter"):
            if name in stated and not self.tabular:
                raise ValueError(f"{name}: is for a file that ends in .csv or .tsv")
        if "arrays" in stated and (self.tabular or (self.file is None and self.images is None)):
            raise ValueError(
                "arrays: is for an .npz file or an image folder" + ("; a table has columns:" if self.tabular else "")
            )
        if not given and self.split is not None:
            raise ValueError("split: needs samples to divide: name them with file:, files: or images:")
        return self
