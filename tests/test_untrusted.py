from __future__ import annotations

import json

import pytest
import torch

from sq_imputer import untrusted
from sq_imputer.errors import BadInput
from sq_imputer.untrusted import check_store, misfit, read_json


@pytest.fixture
def written(tmp_path):
    """A function that writes text into a file and returns its path."""

    def write(text: str | bytes):
        path = tmp_path / "x.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# JSON ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("content", [{"a": [1, 2.5, None, True, "é"]}, [], "x", 3], ids=str)
def test_json_is_read(written, content, strict) -> None:
    assert read_json(written(json.dumps(content)), strict=strict) == content


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", b"\xff\xfe", b"\x80\x04K\x01.", "1" * 5000])
def test_what_is_no_json_is_refused(written, text) -> None:
    with pytest.raises(BadInput, match="x.json' is damaged: .* Copy or download it again"):
        read_json(written(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[NaN]", "NaN is no number"),
        ("[Infinity]", "Infinity is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ('{"a": 1, "a": 1}', "a name occurs twice"),
        ('[{"b": {"a": 1, "a": 2}}]', "a name occurs twice"),
    ],
)
def test_what_readers_take_differently_is_refused_where_it_matters(written, text, words) -> None:
    with pytest.raises(BadInput, match=f"is damaged: {words}"):
        read_json(written(text), strict=True)
    read_json(written(text))  # zarr may write it


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**6, "[" * 10**5 + "]" * 10**5])
def test_json_that_is_too_deep_is_refused(written, text) -> None:
    with pytest.raises(BadInput, match="nested too deeply"):
        read_json(written(text))


def test_json_that_is_too_large_is_not_read(written, monkeypatch) -> None:
    monkeypatch.setattr(untrusted, "MOST_JSON", 10)
    assert read_json(written("1234567890")) == 1234567890
    with pytest.raises(BadInput, match="x.json' has 11 bytes; at most 10 are read"):
        read_json(written("12345678901"))


# Stores (tests/hostile has those that do harm) ----------------------------------------------------


# a field of text and a number, as zarr 3.4 writes record arrays
TEXT = {"name": "fixed_length_utf32", "configuration": {"length_bytes": 40}}
STRUCT = [{"name": "n", "data_type": TEXT}, {"name": "v", "data_type": "float64"}]


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("<f4", 4),
        ("|u1", 1),
        ("|b1", 1),
        ("<U5", 20),
        ("|S3", 3),
        ("|O", 16),
        ("<M8[ns]", 8),
        ("uint8", 1),
        ("float32", 4),
        ("complex128", 16),
        ("bool", 1),
        ("r24", 3),
        ("string", 16),
        ([["a", "<f4"], ["b", "<U3", [2]]], 28),
        ({"name": "fixed_length_utf32", "configuration": {"length_bytes": 40}}, 40),
        ({"name": "struct", "configuration": {"fields": [["a", "int32"], ["b", "float64"]]}}, 16),
        ({"name": "struct", "configuration": {"fields": STRUCT}}, 48),
        ({"name": "numpy.datetime64", "configuration": {"unit": "s"}}, 16),
    ],
    ids=str,
)
def test_bytes_of_a_value_are_those_of_zarr_or_more(kind, size) -> None:
    assert untrusted._bytes_each(kind) == size


@pytest.mark.parametrize(
    ("shape", "chunk", "fits"),
    [
        ([3, 100_000, 100_000], [3, 4096, 4096], True),  # a slide
        ([3, 20_000, 20_000], [3, 20_000, 20_000], True),  # an image in one chunk
        ([10**9, 36_000], [1000, 36_000], False),  # a matrix of 4 * 36e12 bytes
        ([3, 30_000, 30_000], [3, 30_000, 30_000], False),  # a chunk of more than 2 GiB, beyond what Blosc makes
        ([0], [0], True),
        ([], [], True),
    ],
    ids=str,
)
def test_arrays_of_usual_sizes_are_opened(tmp_path, shape, chunk, fits) -> None:
    of = "uint8" if len(shape) == 3 else "float32"
    grid = {"name": "regular", "configuration": {"chunk_shape": chunk}}
    node = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": of,
        "chunk_grid": grid,
        "codecs": ["bytes"],
    }
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "zarr.json").write_text(json.dumps(node))
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    if fits:
        check_store(tmp_path)
    else:
        with pytest.raises(BadInput, match=r"images/zarr.json' declares .*If you trust it, open it with spatialdata"):
            check_store(tmp_path)


# Weights ------------------------------------------------------------------------------------------

OWN = {"a": torch.zeros(2, 3, device="meta"), "b": torch.zeros((), dtype=torch.int64, device="meta")}
FIT = {"a": torch.ones(2, 3), "b": torch.tensor(4)}


def test_weights_that_fit_have_nothing_to_be_said_of() -> None:
    assert misfit(OWN, FIT) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"a": None}, "missing 'a'; unexpected none; other shapes: none"),
        ({"c": torch.ones(1)}, "missing none; unexpected 'c'"),
        ({"a": torch.ones(3, 2)}, "other shapes: 'a (3, 2) float32, expected (2, 3) float32'"),
        ({"a": torch.ones(2, 3).double()}, "a (2, 3) float64, expected (2, 3) float32"),
        ({"a": torch.full((2, 3), torch.inf)}, "NaN or infinite values in 'a'"),
        ({"a": torch.full((2, 3), torch.nan)}, "NaN or infinite values in 'a'"),
    ],
)
def test_what_does_not_fit_is_said(changes, words) -> None:
    assert words in misfit(OWN, {name: tensor for name, tensor in (FIT | changes).items() if tensor is not None})


def test_types_may_be_left_out() -> None:
    assert misfit(OWN, FIT | {"a": torch.ones(2, 3).half()}, types=False) == ""
