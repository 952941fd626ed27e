"""Images, tables and weights of encoders that are not what their names say."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

import sq_imputer as sqi
from sq_imputer import io as sqio
from sq_imputer.encoders import _weights
from sq_imputer.encoders._cards import BUILTIN

SPOTS = pd.DataFrame({"barcode": ["0x0", "1x0"], "array_x": [0, 1], "array_y": [0, 0], "px": [2, 4], "py": [2, 2]})
COUNTS = pd.DataFrame([[1, 2], [3, 4]], index=["0x0", "1x0"], columns=["A", "B"])
SIZES = {"mpp": 1.0, "spot_diameter_um": 2.0}


def encoded(form: str, **how) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer := io.BytesIO(), form, **how)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG that declares a size, whatever its data have."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def archive(kind: str, payload) -> bytes:
    buffer, content = io.BytesIO(), pickle.dumps(payload)
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("../../evil", content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            member = tarfile.TarInfo("../../evil")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


IMAGES = {
    "bomb.png": (
        lambda p: png(60_000, 60_000, bytes(10**6)),
        "could be decompression bomb DOS attack. Save it as TIFF",
    ),
    "truncated.jpg": (lambda p: encoded("JPEG")[:-900], "cannot be decoded: image file is truncated"),
    "truncated.png": (lambda p: encoded("PNG")[:-900], "cannot be decoded"),
    "flipped.png": (lambda p: encoded("PNG")[:60] + b"\xff\xff\xff" + encoded("PNG")[63:], "cannot be decoded"),
    "short.png": (lambda p: png(60, 60, b"\0"), "cannot be decoded"),
    "pickle.png": (lambda p: pickle.dumps(p), "cannot be decoded: cannot identify image file"),
    "script.jpg": (lambda p: b"%!PS-Adobe-3.0\n(x) (w) file", "cannot be decoded"),
    "empty.jpg": (lambda p: b"", "cannot be decoded"),
    "pickle.tif": (lambda p: pickle.dumps(p), "cannot be decoded"),
    "truncated.tif": (lambda p: encoded("TIFF")[:200], "cannot be decoded"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_is_none_is_refused(tmp_path, payload, refused, name) -> None:
    make, words = IMAGES[name]
    (tmp_path / name).write_bytes(make(payload))
    limit = Image.MAX_IMAGE_PIXELS
    refused(lambda: sqio.read_st(tmp_path / name, COUNTS, SPOTS, **SIZES), f"'{name}'", words)
    assert Image.MAX_IMAGE_PIXELS == limit


def test_a_tiff_that_declares_terabytes_is_refused(tmp_path, refused, monkeypatch) -> None:
    tifffile.imwrite(tmp_path / "large.tif", np.zeros((300, 300, 3), np.uint8), compression="zlib")
    monkeypatch.setattr("sq_imputer.pixels.decode.MOST_IMAGE", 200_000)
    refused(lambda: sqio.read_st(tmp_path / "large.tif", COUNTS, SPOTS, **SIZES), "'large.tif' declares an image of")


TABLES = {
    "bomb.tsv.gz": (lambda p: gzip.compress(bytes(10**6)), "has more than 100000 bytes once it is unpacked"),
    "truncated.tsv.gz": (lambda p: gzip.compress(COUNTS.to_csv(sep="\t").encode())[:-12], "cannot be read"),
    "flipped.tsv.gz": (lambda p: gzip.compress(b"abc" * 999)[:12] + b"\xff" * 30, "cannot be read"),
    "ragged.tsv": (lambda p: b"\tA\tB\n0x0\t1\t2\n1x0\t3\t4\t5\t6\n", "cannot be read"),
    "empty.tsv": (lambda p: b"", "cannot be read"),
    "pickle.tsv": (lambda p: pickle.dumps(p), "cannot be read"),
    "pickle.tsv.gz": (lambda p: gzip.compress(pickle.dumps(p)), "cannot be read"),
    "tar.tsv.gz": (lambda p: archive("tar", p), ""),
    "zip.tsv": (lambda p: archive("zip", p), ""),
}


@pytest.mark.parametrize("which", ["counts", "spots"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_none_is_refused(tmp_path, payload, refused, monkeypatch, name, which) -> None:
    make, words = TABLES[name]
    (tmp_path / name).write_bytes(make(payload))
    monkeypatch.setattr("sq_imputer.untrusted.MOST_TEXT", 100_000)
    given = {"counts": COUNTS, "spots": SPOTS} | {which: tmp_path / name}
    refused(lambda: sqio.read_st(np.zeros((9, 9, 3), np.uint8), **given, **SIZES), words)
    assert not (tmp_path.parent.parent / "evil").exists()


def test_a_table_is_unpacked_if_it_is_packed_whatever_it_is_called(tmp_path) -> None:
    text = COUNTS.to_csv(sep="\t").encode()
    for name, content in (("plain.tsv.gz", text), ("packed.tsv", gzip.compress(text))):
        (tmp_path / name).write_bytes(content)
        found = sqio.read_st(np.full((9, 9, 3), 99, np.uint8), tmp_path / name, SPOTS, **SIZES)
        np.testing.assert_array_equal(found["table"].X.toarray(), COUNTS.to_numpy())


@pytest.mark.parametrize("path", ["none.tsv", "https://example.org/counts.tsv", "s3://bucket/counts.tsv"])
def test_a_table_is_a_local_file(refused, path) -> None:
    refused(lambda: sqio.read_st(np.zeros((9, 9, 3), np.uint8), path, SPOTS, **SIZES), "there is no table at '")


ENCODERS = {
    "pickle": (lambda path, p: path.write_bytes(pickle.dumps(p)), "does not hold its weights"),
    "checkpoint": (lambda path, p: torch.save({"w": p}, path), "does not hold its weights"),
    "empty": (lambda path, p: path.write_bytes(b""), "does not hold its weights"),
    "other tensors": (lambda path, p: save_file({"w": torch.ones(2)}, path), "weights do not fit encoder 'uni'"),
    "larger than any": (lambda path, p: hole(path), "bytes that are read"),
}


def hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(_weights.MOST_WEIGHTS + 1)


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_of_an_encoder_that_are_none_are_refused(tmp_path, payload, refused, monkeypatch, name) -> None:
    timm = pytest.importorskip("timm", exc_type=ImportError)
    small = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    monkeypatch.setattr(timm, "create_model", lambda *_args, **_keys: small)
    small.num_features = 1024
    make, words = ENCODERS[name]
    make(tmp_path / "w.safetensors", payload)
    refused(lambda: sqi.encoders.get_encoder("uni", weights=tmp_path / "w.safetensors"), "encoder 'uni'", words)


def test_nan_in_the_weights_of_an_encoder_is_refused(refused) -> None:
    layer = torch.nn.Linear(2, 2)
    state = layer.state_dict() | {"bias": torch.tensor([0.0, torch.nan])}
    refused(lambda: _weights.load_strictly(BUILTIN["uni"], layer, state), "NaN or infinite values in 'bias'")
