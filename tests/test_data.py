"""Data as a model file declares them: every format, which samples are taken, how they are prepared, what is refused."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vgcompile.build import build
from vgcompile.cli import main
from vgcompile.errors import DataError, SpecError
from vgcompile.graph.network import Network
from vgcompile.runtime.data import batch
from vgcompile.runtime.data.arrays import npz, single
from vgcompile.spec import loads

Array = np.ndarray[Any, Any]
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Network]:
    """A network of image x and class numbers y, with the given ``data:``; x and y may be declared otherwise."""

    def built(data: str, x: str = "{shape: [n, 2]}", y: str = "{shape: [n], type: int64, classes: 3}") -> Network:
        layers = "layers:\n  - {kind: flatten}\n  - {kind: dense, units: 3}\n"
        loss = "loss: {kind: cross_entropy, target: y}\n" if "classes" in y else "loss: {kind: mse, target: y}\n"
        text = f"inputs:\n  x: {x}\n  y: {y}\n{layers}{loss}" + (f"data: {data}\n" if data else "")
        return build(loads(text, str(tmp_path / "model.yaml")))

    return built


def write_csv(path: Path, *rows: str) -> None:
    path.write_text("\n".join(rows) + "\n")


# tables


def test_columns_by_name_number_and_range_and_words_as_classes(tmp_path: Path, model: Callable[..., Network]) -> None:
    write_csv(tmp_path / "t.csv", "a, b ,kind", "1,2,pear", "3,4e1,apple", "", '"5",6,pear')
    wanted = np.array([[1, 2], [3, 40], [5, 6]], np.float32)
    for columns in ("[a, b]", "[0, 1]", "{from: a, to: b}", "[{from: 0, to: 1}]", "[a, 1]"):
        feeds = batch(model(f"{{file: t.csv, columns: {{x: {columns}, y: kind}}, batch: 3}}"))
        np.testing.assert_array_equal(feeds["x"], wanted)
        np.testing.assert_array_equal(feeds["y"], [1, 0, 1])
    stated = batch(model("{file: t.csv, columns: {x: [a, b], y: kind}, categories: {y: [pear, plum, apple]}, batch: 3}"))
    np.testing.assert_array_equal(stated["y"], [0, 2, 0])


def test_tables_without_header_and_with_other_separators(tmp_path: Path, model: Callable[..., Network]) -> None:
    (tmp_path / "t.tsv").write_text("1\t2\t0\n3\t4\t2\n")
    (tmp_path / "t.csv").write_bytes("\ufeff1;2;0\r\n3;4;2\r\n".encode())
    for file in ("t.tsv", "t.csv, delimiter: ;"):
        feeds = batch(model(f"{{file: {file}, header: false, columns: {{x: [0, 1], y: 2}}, batch: 2}}"))
        np.testing.assert_array_equal(feeds["x"], [[1, 2], [3, 4]])
        np.testing.assert_array_equal(feeds["y"], [0, 2])


def test_a_real_table_agrees_with_numpy(tmp_path: Path, model: Callable[..., Network]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)), rng.integers(0, 3, 40)
    np.savetxt(
        tmp_path / "t.csv", np.column_stack([x, y]), delimiter=",", header="a,b,y", comments="", fmt=["%.17g", "%.17g", "%d"]
    )
    feeds = batch(model("{file: t.csv, columns: {x: [a, b], y: y}, batch: 40}"))
    np.testing.assert_array_equal(feeds["x"], x.astype(np.float32))
    np.testing.assert_array_equal(feeds["y"], y)


BAD_TABLES = {
    "word": (("a,b,y", "1,2,0", "1,abc,1"), "t.csv:3: column 'b': 'abc' is no number"),
    "empty": (("a,b,y", "1,,0"), "t.csv:2: column 'b': the cell is empty"),
    "nan": (("a,b,y", "nan,1,0"), "t.csv:2: column 'a': 'nan' is no number"),
    "underscore": (("a,b,y", "1_0,1,0"), "t.csv:2: column 'a': '1_0' is no number"),
    "all at once": (("a,b,y", "1,x,0", "z,1,q"), "t.csv:2: column 'b': 'x' is no number\n.*t.csv:3: column 'y': 'q' is no class"),
    "class": (("a,b,y", "1,2,0", "1,2,1.5"), "t.csv:3: column 'y': '1.5' is no class number"),
    "outside": (("a,b,y", "1,2,0", "1,2,3"), "t.csv:3: input 'y' takes classes 0 to 2, found 0 to 3"),
    "many": (
        ("a,b,y", *(f"1,2,{word}" for word in "pqrs")),
        "column 'y': 4 categories, input 'y' has 3 classes; found p, q, r, s",
    ),
    "huge": (("a,b,y", f"1,2,{10**30}"), "t.csv:2: input 'y' takes classes 0 to 2"),
    "beyond": (("a,b,y", "1,1e300,0"), "t.csv:2: holds numbers that are not finite in float"),
    "ragged": (("a,b,y", "1,2,0", "1,2"), "t.csv:3: 2 cells, where the first row has 3"),
    "separator": (("a;b;y", "1;2;0"), "no column 'a' for input 'x'; .*a;b;y"),
    "missing": (("a,c,y", "1,2,0"), "no column 'b' for input 'x'; it holds a, c, y"),
    "twice": (("a,b,b,y", "1,2,3,0"), "2 columns are called 'b'; give the column's number"),
    "no rows": (("a,b,y",), "the table holds no rows below its header"),
    "nothing": (("",), "the table holds no rows"),
    "quote": (("a,b,y", '1,2,"0'), "t.csv:.: not a row of a table"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_bad_tables(rows: tuple[str, ...], message: str, tmp_path: Path, model: Callable[..., Network]) -> None:
    write_csv(tmp_path / "t.csv", *rows)
    with pytest.raises(DataError, match=f"(?s){message}"):
        batch(model("{file: t.csv, columns: {x: [a, b], y: y}, batch: 1}"), size=max(1, len([row for row in rows if row]) - 1))


def test_many_bad_cells_are_counted(tmp_path: Path, model: Callable[..., Network]) -> None:
    write_csv(tmp_path / "t.csv", "a,b,y", *[f"x{i},1,0" for i in range(50)])
    with pytest.raises(DataError, match="and 30 more faults of this table") as caught:
        batch(model("{file: t.csv, columns: {x: [a, b], y: y}}"))
    assert len(str(caught.value).splitlines()) == 21


def test_one_wrong_word_is_one_fault_with_its_first_rows(tmp_path: Path, model: Callable[..., Network]) -> None:
    write_csv(tmp_path / "t.csv", "a,b,y", "1,2,pear", *["1,2,plum"] * 20)
    with pytest.raises(DataError) as caught:
        batch(model("{file: t.csv, columns: {x: [a, b], y: y}, categories: {y: [pear, apple]}}"))
    said = "t.csv:3: column 'y': 'plum' is none of pear, apple (and in 19 more rows: lines 4, 5, 6, ...)"
    assert str(caught.value) == f"{tmp_path}/model.yaml:8:45: {tmp_path}/{said}"
    (complaint,) = caught.value.complaints
    assert [(note.mark.line, note.mark.column, note.mark.end) for note in complaint.notes if note.mark] == [
        (3, 5, 9),
        (4, 5, 9),
        (5, 5, 9),
    ]


# where the model's text asks for them

PLACES = {
    "lost table": ("{file: lost.csv, columns: {x: [a, b], y: y}}", (8, 14), "no such data file; did you mean 't.csv'"),
    "column": ("{file: t.csv, columns: {x: [a, c], y: y}}", (8, 34), "no column 'c' for input 'x'"),
    "cell": ("{file: t.csv, columns: {x: [a, b], y: y}, batch: 1}", (8, 34), "t.csv:3: column 'b': 'no' is no number"),
    "shape": ("{file: t.csv, columns: {x: a, y: y}, batch: 1}", (8, 34), "input 'x' needs float"),
    "lost arrays": ("{file: lost.npz}", (8, 14), "no such data file"),
    "malformed arrays": ("{file: t.npz}", (8, 14), "not an .npz file of plain arrays"),
    "array": ("{file: d.npz, arrays: {x: xx, y: y}, batch: 1}", (8, 33), "no array 'xx' for input 'x'; did you mean 'x'?"),
    "samples": ("{file: d.npz, batch: 31}", (8, 28), "a batch of 31 samples is asked for, the file holds 30"),
    "lost array": ("{files: {x: lost.npy, y: y.npy}}", (8, 19), "no such data file"),
    "malformed array": ("{files: {x: t.csv, y: y.npy}}", (8, 19), "not an .npy file"),
    "normalize": ("{file: d.npz, batch: 1, normalize: {x: {mean: [1, 2, 3]}}}", (8, 46), "has 3 numbers, axis 1 has 2"),
    "pictures": ("{images: {folder: lost, size: [1, 1]}, arrays: {x: image, y: label}}", (8, 25), "no such folder of pictures"),
}


@pytest.mark.parametrize(("data", "place", "message"), PLACES.values(), ids=PLACES)
def test_what_is_wrong_with_data_is_said_at_the_line_that_asks_for_them(
    data: str, place: tuple[int, int], message: str, tmp_path: Path, model: Callable[..., Network]
) -> None:
    write_csv(tmp_path / "t.csv", "a,b,y", "1,2,0", "1,no,1")
    (tmp_path / "t.npz").write_text("no array")
    save_arrays(tmp_path)
    with pytest.raises(DataError) as caught:
        batch(model(data))
    (complaint,) = caught.value.complaints
    assert (complaint.mark.line, complaint.mark.column, complaint.rule.code) == (*place, "VG701")
    assert message in str(complaint)


def test_an_input_that_cannot_be_drawn_is_said_where_it_is_declared() -> None:
    text = "inputs:\n  x: {shape: [n, t, 3]}\nlayers: [{kind: time_pool}, {kind: dense, units: 3}]\n"
    with pytest.raises(DataError, match=r"^model\.yaml:2:3: input 'x' has shape \[n, t, 3\] of unknown t; give it with --data"):
        batch(build(loads(text, "model.yaml")))


def test_a_check_shows_the_row_below_the_line_that_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(tmp_path / "t.csv", "a,b,y", "1,2,0", '"1",no,1', "1,no,2")
    text = "inputs:\n  x: {shape: [n, 2]}\n  y: {shape: [n], type: int64, classes: 3}\nlayers: [{kind: dense, units: 3}]\n"
    text += "loss: {kind: cross_entropy, target: y}\ndata: {file: t.csv, columns: {x: [a, b], y: y}}\n"
    (tmp_path / "model.yaml").write_text(text)
    assert main(["check", str(tmp_path / "model.yaml"), "--format", "text"]) == 2
    shown = capsys.readouterr().err.replace(str(tmp_path), "")
    assert shown == (
        "/model.yaml:6:34: error[VG701]: /t.csv:3: column 'b': 'no' is no number (and in 1 more rows: line 4)\n"
        "  6 | data: {file: t.csv, columns: {x: [a, b], y: y}}\n"
        "    |                                  ^~~~~~\n"
        "   --> /t.csv\n"
        '  3 | "1",no,1\n'
        "    | ^~~~~~~~ 'no' is no number\n".replace("^~~~~~~~", "--------")
        + "  4 | 1,no,2\n    |   -- 'no' is no number\n"
    )
    assert main(["check", str(tmp_path / "model.yaml"), "--format", "json", "--fail-on", "dead"]) == 2
    (found,) = json.loads(capsys.readouterr().out)["complaints"]
    assert (found["code"], found["line"], found["notes"][0]["line"]) == ("VG701", 6, 3)


@given(content=st.one_of(st.binary(max_size=80), st.text('ab,y01."\n\r;\x00e-', max_size=80).map(str.encode)))
@FUZZ
def test_any_bytes_are_a_table_or_a_complaint(content: bytes, tmp_path: Path, model: Callable[..., Network]) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    sound(model("{file: t.csv, columns: {x: [0, 1], y: 2}, header: false, batch: 1}"))


@given(
    rows=st.lists(
        st.tuples(*[st.floats(allow_nan=False, allow_infinity=False, width=32)] * 2, st.integers(0, 2)), min_size=1, max_size=8
    )
)
@FUZZ
def test_what_csv_writes_is_read_back(
    rows: list[tuple[float, float, int]], tmp_path: Path, model: Callable[..., Network]
) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "y"], *rows])
    feeds = batch(model("{file: t.csv, columns: {x: [a, b], y: y}}"), size=len(rows))
    np.testing.assert_array_equal(feeds["x"], np.array([row[:2] for row in rows], np.float32))
    np.testing.assert_array_equal(feeds["y"], [row[2] for row in rows])


# arrays


def save_arrays(folder: Path, count: int = 30) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    x, y = rng.normal(3.0, 2.0, (count, 2)), rng.integers(0, 3, count)
    np.savez_compressed(folder / "d.npz", x=x, y=y, f=np.asfortranarray(x))
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return x, y


@pytest.mark.parametrize("data", ["file: d.npz", "file: d.npz, arrays: {x: f, y: y}", "files: {x: x.npy, y: y.npy}"])
@pytest.mark.parametrize("more", ["", ", shuffle: {seed: 5}"])
def test_arrays_are_read_sample_by_sample(data: str, more: str, tmp_path: Path, model: Callable[..., Network]) -> None:
    x, y = save_arrays(tmp_path)
    feeds = batch(model(f"{{{data}, batch: 11{more}}}"))
    rows = [int(np.flatnonzero(x[:, 0].astype(np.float32) == value)[0]) for value in feeds["x"][:, 0]]
    assert len(set(rows)) == 11
    assert (rows == list(range(11))) == (not more)
    np.testing.assert_array_equal(feeds["x"], x[rows].astype(np.float32))
    np.testing.assert_array_equal(feeds["y"], y[rows])


def test_a_batch_of_a_large_file_is_all_that_is_held(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "big.npz", x=np.zeros((40_000, 100)))  # 32 MB
    np.save(tmp_path / "big.npy", np.zeros((40_000, 100)))
    for samples in (npz(tmp_path / "big.npz")["x"], single(tmp_path / "big.npy")):
        tracemalloc.start()
        taken = samples.take(np.array([39_999, 7, 7, 8]))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken.shape == (4, 100)
        assert peak < 3e6


@given(rows=st.lists(st.integers(0, 29), max_size=12))
@FUZZ
def test_any_rows_in_any_order(rows: list[int], tmp_path: Path) -> None:
    x, _ = save_arrays(tmp_path)
    for samples in (npz(tmp_path / "d.npz")["x"], npz(tmp_path / "d.npz")["f"], single(tmp_path / "x.npy")):
        np.testing.assert_array_equal(samples.take(np.array(rows, int)), x[rows])


def test_a_sample_that_is_not_finite_is_named(tmp_path: Path, model: Callable[..., Network]) -> None:
    x, y = save_arrays(tmp_path)
    x[5, 1] = np.nan
    np.savez(tmp_path / "d.npz", x=x, y=y)
    with pytest.raises(DataError, match=r"d\.npz: array 'x', sample 5: holds numbers that are not finite"):
        batch(model("{file: d.npz, batch: 10}"))
    batch(model("{file: d.npz, batch: 5}"))
    with pytest.raises(DataError, match="no such data file"):
        batch(model("{files: {x: x.npy, y: absent.npy}}"))
    with pytest.raises(DataError, match=r"d\.npz: not an \.npy file"):
        batch(model("{files: {x: d.npz, y: y.npy}}"))


@given(
    cut=st.integers(0, 900), at=st.integers(0, 900), new=st.binary(max_size=6), suffix=st.sampled_from(["npz", "npy", "stored"])
)
@settings(FUZZ, max_examples=200)
def test_spoilt_arrays_are_read_or_complained_about(
    cut: int, at: int, new: bytes, suffix: str, tmp_path: Path, model: Callable[..., Network]
) -> None:
    save_arrays(tmp_path)
    if suffix == "stored":
        np.savez(tmp_path / "d.npz", **dict(np.load(tmp_path / "d.npz")))
    target = tmp_path / ("x.npy" if suffix == "npy" else "d.npz")
    content = target.read_bytes()
    content = content[:at] + new + content[at + len(new) :]
    target.write_bytes(content[: len(content) - cut // 3])
    sound(model("{files: {x: x.npy, y: y.npy}, batch: 4}" if suffix == "npy" else "{file: d.npz, batch: 4}"))


def test_a_header_that_lies_about_its_size(tmp_path: Path, model: Callable[..., Network]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**15, 2)})
    (tmp_path / "x.npy").write_bytes(header.getvalue())
    with pytest.raises(DataError, match=r"x\.npy is cut off: it should hold \[1000000000000000, 2\] float64"):
        batch(model("{files: {x: x.npy, y: x.npy}}"))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(DataError, match=r"array 'x' is cut off"):
        batch(model("{file: d.npz}"))


def sound(network: Network) -> None:
    """Either a batch or a complaint in words."""
    try:
        feeds = batch(network)
    except DataError:
        return
    assert all(np.isfinite(array).all() for array in feeds.values())


# pictures

COLOR = "{folder: pictures, size: [2, 3]}"
RGB, GRAY = "{shape: [n, 3, 2, 3], range: [0, 1]}", "{shape: [n, 1, 4, 4], range: [0, 1]}"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for index in range(2):
            pixels = np.full((4, 6, 3), (40 * number, 10 * index, 255), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    (folder / "ant" / ".hidden").write_text("no picture")
    return folder


def test_pictures_are_sized_and_classes_are_folders(pictures: Path, model: Callable[..., Network]) -> None:
    feeds = batch(model(f"{{images: {COLOR}, arrays: {{x: image, y: label}}, batch: 6}}", RGB))
    np.testing.assert_array_equal(feeds["y"], [0, 0, 1, 1, 2, 2])
    wanted = np.array([[40 * (row // 2), 10 * (row % 2), 255] for row in range(6)]) / 255
    np.testing.assert_allclose(feeds["x"], np.broadcast_to(wanted[:, :, None, None], (6, 3, 2, 3)), rtol=1e-6)
    gray = batch(model("{images: {folder: pictures, size: [4, 4], color: gray}, arrays: {x: image, y: label}, batch: 6}", GRAY))
    weights = np.array([299, 587, 114]) / 1000  # ITU-R 601-2, as Pillow's manual states
    np.testing.assert_allclose(gray["x"][:, 0, 0, 0], wanted @ weights, atol=1 / 255)


def test_only_the_pictures_of_the_batch_are_decoded(pictures: Path, model: Callable[..., Network]) -> None:
    (pictures / "cat" / "1.png").write_bytes(b"no picture")
    network = model(f"{{images: {COLOR}, arrays: {{x: image, y: label}}, batch: 5}}", RGB)
    assert batch(network)["x"].shape == (5, 3, 2, 3)
    with pytest.raises(DataError, match=r"cat/1\.png: not a picture that can be decoded"):
        batch(network, size=6)


def test_bad_folders(pictures: Path, tmp_path: Path, model: Callable[..., Network]) -> None:
    network = model(f"{{images: {COLOR}, arrays: {{x: image, y: label}}, batch: 6}}", RGB)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(pictures / "ant" / "0.png")
    with pytest.raises(DataError, match=r"ant/0\.png: its pixels have more than 8 bits \(mode I;16\)"):
        batch(network)
    (pictures / "ant" / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"notes\.txt: no picture by its ending; remove it, or hide it"):
        batch(network)
    (pictures / "aaa").mkdir()
    with pytest.raises(DataError, match="aaa: holds no pictures"):
        batch(network)
    (pictures / "aaa").rmdir()
    (pictures / "ant" / "notes.txt").unlink()
    other = model(f"{{images: {COLOR}, arrays: {{x: image, y: label}}, batch: 6}}", "{shape: [n, 3, 5, 5]}")
    with pytest.raises(DataError, match=r"needs float \[n, 3, 5, 5\], found float32 \[6, 3, 2, 3\]"):
        batch(other)
    pictures.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="pictures: no such folder of pictures"):
        batch(network)
    pictures.mkdir()
    with pytest.raises(DataError, match="holds no sub-folders"):
        batch(network)


@given(at=st.integers(0, 90), new=st.binary(max_size=6), format=st.sampled_from(["png", "jpg", "gif", "bmp", "tiff", "webp"]))
@settings(FUZZ, max_examples=150)
def test_spoilt_pictures_are_read_or_complained_about(
    at: int, new: bytes, format: str, tmp_path: Path, model: Callable[..., Network]
) -> None:
    path = tmp_path / "one" / "a" / f"0.{format}"
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.iterdir():
        old.unlink()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:at] + new + content[at + len(new) :])
    sound(model("{images: {folder: one, size: [2, 3]}, arrays: {x: image, y: label}, batch: 1}", RGB))


# parts, order, normalization


@given(count=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
@FUZZ
def test_parts_are_disjoint_and_together_all(
    count: int, share: float, seed: int, tmp_path: Path, model: Callable[..., Network]
) -> None:
    np.savez(tmp_path / "d.npz", x=np.arange(2.0 * count).reshape(count, 2), y=np.zeros(count, int))
    network = model(f"{{file: d.npz, split: {{validation: {share}, seed: {seed}}}}}")
    held = min(max(round(share * count), 1), count - 1)
    sizes: Mapping[Any, int] = {"validation": held, "train": count - held}
    rows = {part: batch(network, size=size, part=part)["x"][:, 0] / 2 for part, size in sizes.items()}
    assert sorted([*rows["train"], *rows["validation"]]) == list(range(count))
    np.testing.assert_array_equal(batch(network, size=count - held)["x"][:, 0] / 2, rows["train"])
    with pytest.raises(DataError, match=f"a batch of {held + 1} samples is asked for, the validation part holds {held}"):
        batch(network, size=held + 1, part="validation")


@given(seed=st.integers(0, 99), part=st.sampled_from([None, "train", "validation"]))
@FUZZ
def test_same_seed_same_bytes(seed: int, part: Any, tmp_path: Path, model: Callable[..., Network]) -> None:
    save_arrays(tmp_path)
    data = f"{{file: d.npz, arrays: {{y: y}}, shuffle: {{seed: {seed}}}, split: {{validation: 0.4}}, batch: 9}}"
    feeds = [batch(model(data, "{shape: [n, 2], distribution: normal}"), seed=seed, part=part) for _ in range(2)]
    assert {name: array.tobytes() for name, array in feeds[0].items()} == {n: array.tobytes() for n, array in feeds[1].items()}


def test_normalized_over_the_training_part(tmp_path: Path, model: Callable[..., Network]) -> None:
    x, _ = save_arrays(tmp_path, 9000)
    network = model("{file: d.npz, scale: 3.0, normalize: {x: standard}, split: {validation: 0.25}}")
    train = batch(network, size=6750)["x"].astype(np.float64)
    np.testing.assert_allclose([train.mean(axis=0), train.std(axis=0)], [[0, 0], [1, 1]], atol=1e-5)
    held = batch(network, size=2250, part="validation")["x"].astype(np.float64)
    assert not np.allclose(held.mean(axis=0), 0, atol=1e-4), "the validation part has no say in its own statistics"
    whole = batch(model("{file: d.npz, normalize: standard}"), size=9000)["x"]
    np.testing.assert_allclose(whole, (x - x.mean(axis=0)) / x.std(axis=0), atol=1e-5)


def test_stated_moments_and_channels(pictures: Path, model: Callable[..., Network]) -> None:
    data = f"images: {COLOR}, arrays: {{x: image, y: label}}, batch: 6"
    x = RGB.replace(", range: [0, 1]", "")
    plain = batch(model(f"{{{data}}}", x))["x"]
    stated = batch(model(f"{{{data}, normalize: {{x: {{mean: [0.5, 0.25, 1], sd: 2}}}}}}", x))["x"]
    np.testing.assert_allclose(stated, (plain - np.array([0.5, 0.25, 1]).reshape(3, 1, 1)) / 2, atol=1e-6)
    standard = batch(model(f"{{{data}, normalize: standard}}", x))["x"]
    np.testing.assert_allclose(standard[:, :2].std(axis=(0, 2, 3)), [1, 1], atol=1e-5)
    assert (standard[:, 2] == 0).all(), "a channel that does not vary is moved to 0, not divided by 0"
    with pytest.raises(DataError, match="normalize: mean of input 'x' has 2 numbers, axis 1 has 3"):
        batch(model(f"{{{data}, normalize: {{x: {{mean: [0, 1]}}}}}}", x))


def test_a_named_file_is_read_in_place_of_the_own(tmp_path: Path, model: Callable[..., Network]) -> None:
    x, y = save_arrays(tmp_path)
    write_csv(tmp_path / "t.csv", "a,b,y", "1,2,0", "3,4,2")
    network = model("{file: t.csv, columns: {x: [a, b], y: y}, split: {validation: 0.5}, batch: 1}")
    assert batch(network, file=str(tmp_path / "t.csv"))["x"].shape == (2, 2)
    np.testing.assert_array_equal(batch(network, file=str(tmp_path / "d.npz"))["y"], y)
    with pytest.raises(DataError, match="--part validation divides the model's own data"):
        batch(network, file=str(tmp_path / "d.npz"), part="validation")
    with pytest.raises(DataError, match="no samples are set apart for validation"):
        batch(model("{file: d.npz}"), part="validation")
    with pytest.raises(DataError, match="--part train: the model names no data files"):
        batch(model(""), part="train")
    assert len(x) == 30


def test_commands_read_the_part_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_arrays(tmp_path, 100)
    (tmp_path / "m.yaml").write_text(
        "inputs: {x: {shape: [n, 2]}, y: {shape: [n], type: int64, classes: 3}}\nlayers: [{kind: dense, units: 3}]\n"
        "loss: {kind: cross_entropy, target: y}\ndata: {file: d.npz, batch: 40, split: {validation: 0.4}}\n"
    )
    losses = []
    for part in ([], ["--part", "train"], ["--part", "validation"]):
        assert main(["run", str(tmp_path / "m.yaml"), "--json", *part]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
        assert main(["analyze", str(tmp_path / "m.yaml"), "--json", *part]) == 0
        provenance = json.loads(capsys.readouterr().out)["provenance"]
        assert provenance["data"] == f"d.npz, {part[-1] if part else 'train'}"
        assert provenance["loss_value"] == pytest.approx(losses[-1], rel=1e-6)
    assert losses[0] == losses[1] != losses[2]


# drawn


def test_drawn_beside_real_data(tmp_path: Path, model: Callable[..., Network]) -> None:
    x, y = save_arrays(tmp_path, 300)
    network = model(
        "{file: d.npz, arrays: {x: x}, batch: 300, normalize: standard}",
        y="{shape: [n], type: int64, classes: 3, distribution: {kind: linear, of: x}}",
    )
    feeds = batch(network, seed=4)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(feeds["x"], z, atol=1e-5)
    assert len(np.unique(feeds["y"])) == 3
    assert not np.array_equal(feeds["y"], y), "an array of that name in the file is another thing"
    np.testing.assert_array_equal(batch(network, size=20, seed=4)["y"], feeds["y"][:20])


def test_drawn_distributions(model: Callable[..., Network]) -> None:
    y = "{shape: [n, 3], distribution: {kind: linear, of: x, noise: 0.1}}"
    feeds = batch(model("{batch: 4000}", "{shape: [n, 2], distribution: {kind: bernoulli, p: 0.3}}", y))
    assert set(np.unique(feeds["x"])) == {0.0, 1.0}
    assert feeds["x"].mean() == pytest.approx(0.3, abs=0.02)
    w, rest, *_ = np.linalg.lstsq(feeds["x"].astype(np.float64), feeds["y"].astype(np.float64))
    np.testing.assert_allclose(rest / 4000, 0.01, rtol=0.1)
    constant = batch(model("{batch: 5}", "{shape: [n, 2], distribution: {kind: constant, value: 0.5}}"))
    np.testing.assert_array_equal(constant["x"], np.full((5, 2), 0.5))
    assert w.shape == (2, 3)


def test_the_teacher_is_the_same_for_every_part(tmp_path: Path, model: Callable[..., Network]) -> None:
    save_arrays(tmp_path, 200)
    network = model(
        "{file: d.npz, arrays: {x: x}, split: {validation: 0.5}, batch: 100}",
        y="{shape: [n, 3], distribution: {kind: linear, of: x}}",
    )
    ws = [np.linalg.lstsq(f["x"], f["y"])[0] for f in (batch(network, part="train"), batch(network, part="validation"))]
    np.testing.assert_allclose(ws[0], ws[1], atol=1e-4)


# what the text may not say


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{file: a.npz, files: {x: x.npy, y: y.npy}}", "file: and files: exclude each other"),
        ("{file: x.npy}", "one array: write files:"),
        ("{file: a.npz, columns: {x: 1, y: 2}}", r"columns: is for a file that ends in \.csv"),
        ("{file: a.csv, arrays: {x: a, y: b}}", "a table has columns:"),
        ("{split: {validation: 0.2}}", "split: needs samples to divide"),
        ("{file: a.npz, split: {validation: 1.5}}", "'validation' should be less than 1"),
        ("{file: a.npz, normalize: {y: standard}}", "class numbers, which are not normalized"),
        ("{file: a.npz, normalize: {z: standard}}", "unknown input 'z'"),
        ("{file: a.npz, normalize: {x: standart}}", "'standard'"),
        ("{file: a.csv, columns: {x: 0}}", "no array for the input 'y'; name it here, or state its distribution: at line 3"),
        ("{file: a.csv, categories: {x: [a]}}", "takes real numbers, categories become class numbers"),
        ("{images: {folder: f, size: [2, 2]}}", "no array for the input 'x'; write arrays:"),
        ("{images: {folder: f, size: [2, 2]}, arrays: {x: pixels, y: label}}", "has no array 'pixels'"),
        ("{file: a.npz, shuffle: yes}", "'shuffle' should be true or false or a mapping"),
    ],
)
def test_what_is_refused(data: str, message: str, model: Callable[..., Network]) -> None:
    with pytest.raises(SpecError, match=message):
        model(data)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{shape: [n, 2], range: [0.5, 1], distribution: bernoulli}", "gives 0 and 1, which range: does not hold"),
        ("{shape: [n, 2], range: [0, 1], distribution: {kind: constant, value: 2}}", "the constant 2 lies outside range:"),
        ("{shape: [n, 2], range: [0, 1], distribution: {kind: linear, of: x}}", "leaves every range"),
        ("{shape: [n, 2], distribution: classes}", "for inputs of type: int64"),
        ("{shape: [n, 2], distribution: {kind: linear, of: z}}", "unknown input 'z'"),
        ("{shape: [n, 2], distribution: {kind: linear, of: x}}", "a linear teacher reads real numbers of another input"),
        ("{shape: [n, 2], distribution: {kind: linear, of: y}}", "a linear teacher reads real numbers of another input"),
    ],
)
def test_distributions_that_are_refused(fields: str, message: str, model: Callable[..., Network]) -> None:
    with pytest.raises(SpecError, match=message):
        model("", fields)
