"""Files of others, looked at before they are used: JSON, text, arrays, the metadata of zarr stores, weights."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sq_imputer.errors import BadInput, MissingKey, SqImputerError, listed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MOST_JSON = 2**24  # bytes of a file of settings or metadata
MOST_TEXT = 2**30  # bytes of a table of text, once it is unpacked: 5,000 spots x 36,000 genes have 0.4e9
MOST_UNPACKED = 2**32  # bytes of an array in a file of numpy, once it is unpacked
MOST_ARRAY = 2**42  # bytes that an array may declare
MOST_CHUNK = 2**31  # bytes of a decoded chunk, the most that zarr's usual compressor makes
MOST_CHUNKS = 10**7
KINDS = ("images", "labels", "points", "shapes", "tables")
METADATA = ("zarr.json", ".zarray", ".zgroup", ".zmetadata")
# Codecs that turn bytes into numbers and strings, and into nothing else.
CODECS = frozenset(
    "adler32 astype base64 bitround blosc bytes bz2 cast_value crc32 crc32c delta endian fixedscaleoffset fletcher32 "
    "gzip jenkins_lookup3 lz4 lzma packbits pcodec quantize scale_offset sharding_indexed shuffle transpose vlen-array "
    "vlen-bytes vlen-utf8 zfpy zlib zstd".split()
)
PACKING = (OSError, EOFError, zlib.error)  # raised by files that are damaged
_TRUST = "If you trust it, open it with spatialdata.read_zarr()."


def read_json(path: Path, *, strict: bool = False):
    """The content of a JSON file that is not too large and not too deep.

    Parameters
    ----------
    path
        The file.
    strict
        Refuse what is not in the standard, or means different things to different readers: NaN, infinity, and names
        that occur twice in an object.

    Raises
    ------
    BadInput
        If it is none of that, or no JSON.
    """
    if path.stat().st_size > MOST_JSON:
        raise BadInput(f"'{path}' has {path.stat().st_size} bytes; at most {MOST_JSON} are read of such a file.")
    rules = {"object_pairs_hook": _once, "parse_constant": _no_number} if strict else {}
    try:
        return json.loads(path.read_bytes(), **rules)
    except (RecursionError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise BadInput(f"'{path}' is damaged: {why}. Copy or download it again.") from error


def _once(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found


def _no_number(text: str):
    raise ValueError(f"{text} is no number")


def _there(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise MissingKey(f"no file '{path}'; give the path of one.")
    return path


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, gzipped or not, that is not too large.

    Raises
    ------
    MissingKey
        If there is no such file.
    BadInput
        If it is damaged, no text, or too large.
    """
    path = _there(path)
    try:
        return unpacked(path).decode("utf-8-sig")
    except (*PACKING, UnicodeDecodeError) as error:
        raise BadInput(f"'{path}' is damaged, or no text in UTF-8: {error}. Copy or download it again.") from error


def is_packed(path: Path) -> bool:
    """Whether a file is gzipped, whatever it is called."""
    with path.open("rb") as raw:
        return raw.read(2) == b"\x1f\x8b"


def opened(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked while they are read."""
    return gzip.open(path) if is_packed(path) else path.open("rb")


def unpacked(path: Path) -> bytes:
    """The content of a table of text, which is gzipped or not, whatever its name says.

    Raises one of :data:`PACKING` if it cannot be read or unpacked, and `BadInput` if there is too much of it.
    """
    with opened(path) as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise BadInput(
            f"'{path.name}' has more than {MOST_TEXT} bytes once it is unpacked; no more are read. Give a part of it, "
            "or what it holds as a DataFrame."
        )
    return content


def read_arrays(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of a file of numpy (npz) by name; arrays of objects, which are pickles, are refused.

    Raises
    ------
    MissingKey
        If there is no such file or array.
    BadInput
        If it is damaged, too large, or holds objects.
    """
    import numpy as np

    path = _there(path)
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        missing = [name for name in names if name not in sizes]
        if missing:
            raise MissingKey(f"'{path}' has no array {listed(missing)}; it has {listed(sizes)}. Name them.")
        large = [name for name in names if sizes[name] > MOST_UNPACKED]
        if large:
            raise BadInput(f"{listed(large)} in '{path}' has more than {MOST_UNPACKED} bytes; no more are read.")
        with np.load(path) as file:
            return {name: file[name] for name in names}
    except SqImputerError:
        raise
    except (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        told = f"'{path}' is damaged, or holds objects, which are not read: {error}"
        raise BadInput(f"{told}. Write it with numpy.savez(path, names=np.array([...]), vectors=...).") from error


def check_store(path: str | Path) -> None:
    """Look at a SpatialData store without opening it: what would harm the one who opens it is refused.

    That are codecs other than the usual ones (pickle runs code), arrays and chunks of absurd size, links, and metadata
    that is too large or too deep. Only names and metadata are read.

    Parameters
    ----------
    path
        The folder of the store.

    Raises
    ------
    BadInput
        If there is no SpatialData store, or something in it is refused; the message names the file.
    """
    folder = Path(path)
    try:
        other = _instead(folder)
        if other:
            raise BadInput(f"no SpatialData store at '{folder}', but {other}; give the folder of a store (.zarr).")
        for file in _files(folder):
            _check_file(file)
    except OSError as error:
        raise BadInput(f"'{folder}' cannot be read: {error.strerror}. Check its permissions.") from error
    except RecursionError as error:
        raise BadInput(f"metadata in '{folder}' are nested too deeply. Copy or download it again.") from error


def _instead(folder: Path) -> str:
    """What is there if it is no SpatialData store."""
    if folder.is_file():
        with folder.open("rb") as file:
            is_hdf5 = file.read(4) == b"\x89HDF"
        return "an HDF5 file (anndata.read_h5ad() reads .h5ad)" if is_hdf5 else "another file"
    if not folder.exists():
        return "nothing"
    if not any((folder / name).is_file() for name in ("zarr.json", ".zgroup")):
        return "another folder" if any(folder.iterdir()) else "an empty folder"
    if any((folder / kind).is_dir() for kind in KINDS):
        return ""
    return "an AnnData store (anndata.read_zarr() reads it)" if _is_anndata(folder) else "a zarr store without elements"


def _is_anndata(folder: Path) -> bool:
    file = next(file for file in (folder / "zarr.json", folder / ".zattrs", folder / ".zgroup") if file.is_file())
    said = read_json(file)
    said = said.get("attributes", said) if isinstance(said, dict) else {}
    return isinstance(said, dict) and said.get("encoding-type") == "anndata"


def _files(folder: Path) -> Iterator[Path]:
    """Metadata files of a store, after its links and whatever else is neither file nor folder were refused."""
    todo = [folder.resolve()]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(Path(entry))
                elif not entry.is_file(follow_symlinks=False):
                    kind = "a link" if entry.is_symlink() else "no file"
                    raise BadInput(f"'{entry.path}' is {kind}; a store holds files and folders only. {_TRUST}")
                elif entry.name in METADATA or entry.name == ".zattrs":
                    yield Path(entry)


def _check_file(file: Path) -> None:
    content = read_json(file)
    if not isinstance(content, dict):
        raise BadInput(f"'{file}' is damaged: expected an object of JSON. Copy or download it again.")
    if file.name == ".zmetadata":  # beside nodes it has their attributes, which may hold anything
        members = content.get("metadata")
        members = members.items() if isinstance(members, dict) else ()
        content = {"metadata": {name: node for name, node in members if not name.endswith(".zattrs")}}
    for node in _nodes(content) if file.name != ".zattrs" else ():
        _check_node(node, file)


def _nodes(node: dict) -> Iterator[dict]:
    """A node of metadata and, where it is consolidated, all nodes below."""
    yield node
    for holder in (node, node.get("consolidated_metadata")):
        members = holder.get("metadata") if isinstance(holder, dict) else None
        for member in members.values() if isinstance(members, dict) else ():
            if isinstance(member, dict):
                yield from _nodes(member)


def _check_node(node: dict, file: Path) -> None:
    for name in (name for field in ("codecs", "filters", "compressor") for name in _codecs(node.get(field))):
        if name.removeprefix("numcodecs.") not in CODECS:
            raise BadInput(f"'{file}' asks for the codec '{name}', which is not known to be harmless. {_TRUST}")
    if "shape" not in node:
        return
    try:
        sizes = _sizes(node)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadInput(f"'{file}' is damaged: an array without a size. Copy or download it again.") from error
    for what, (size, most) in sizes.items():
        if size > most:
            found, most = math.log10(size), math.log10(most)
            raise BadInput(f"'{file}' declares 10^{found:.1f} {what}; at most 10^{most:.1f} are opened. {_TRUST}")


def _codecs(declared) -> Iterator[str]:
    """Names of codecs, and of those inside of them."""
    for codec in declared if isinstance(declared, list) else [] if declared is None else [declared]:
        if isinstance(codec, dict):
            yield from (str(codec[key]) for key in ("id", "name") if key in codec)
            inner = codec.get("configuration")
            for field in ("codecs", "index_codecs") if isinstance(inner, dict) else ():
                yield from _codecs(inner.get(field))
        else:
            yield str(codec)


def _sizes(node: dict) -> dict[str, tuple[int, int]]:
    """What an array declares, beside the most that is opened."""
    shape = _whole(node["shape"])
    chunk = _whole(node["chunks"] if "chunks" in node else node["chunk_grid"]["configuration"]["chunk_shape"])
    each = _bytes_each(node["dtype"] if "dtype" in node else node["data_type"])
    counts, codecs = [_count(shape, chunk)], node.get("codecs") or ()
    while shard := next((c for c in codecs if isinstance(c, dict) and c.get("name") == "sharding_indexed"), None):
        # the chunks inside of a shard are decoded one by one, and its index lists them all
        inner, codecs = _whole(shard["configuration"]["chunk_shape"]), shard["configuration"].get("codecs") or ()
        counts.append(_count(chunk, inner))
        chunk = inner
    return {
        "bytes in an array": (each * math.prod(shape), MOST_ARRAY),
        "bytes in a chunk": (each * math.prod(chunk), MOST_CHUNK),
        "chunks": (max(counts), MOST_CHUNKS),
    }


def _whole(sides) -> list[int]:
    if not isinstance(sides, list) or not all(type(side) is int and side >= 0 for side in sides):
        raise TypeError("expected a list of whole numbers")
    return sides


def _count(shape: list[int], chunk: list[int]) -> int:
    return math.prod(-(-side // max(step, 1)) for side, step in zip(shape, chunk, strict=True))


def _bytes_each(kind) -> int:
    """Bytes of a value; 16 of types that have no size in their name."""
    if isinstance(kind, list):  # fields: name, type and sometimes shape
        return sum(map(_bytes_of_field, kind))
    if isinstance(kind, dict):  # {"name": "fixed_length_utf32", "configuration": {"length_bytes": 40}}
        more = kind.get("configuration") or {}
        return max(16, int(more.get("length_bytes", 0)), _bytes_each(more.get("fields", [])))
    name, digits = re.fullmatch(r"[<>|=]?([a-zA-Z_]+)(\d*)(?:\[\w+\])?", kind).groups()
    if len(name) == 1 and name != "r":  # as numpy has it: <f4 has 4 bytes
        return int(digits or 16) * (4 if name == "U" else 1)
    return 1 if name == "bool" else math.ceil(int(digits or 128) / 8)  # as zarr has it: float32 has 32 bits


def _bytes_of_field(field) -> int:
    if isinstance(field, dict):  # {"name": "a", "data_type": "int32"}
        return _bytes_each(field["data_type"])
    return _bytes_each(field[1]) * math.prod(_whole(field[2]) if len(field) > 2 else ())


def misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, types: bool = True) -> str:
    """What keeps weights from fitting those of a model, in words; empty if nothing does.

    Parameters
    ----------
    expected
        The tensors of the model, which may be without memory.
    found
        The weights.
    types
        Whether they must have the same types of numbers, too.
    """
    from torch import isfinite

    def form(tensor: Tensor) -> str:
        return f"{tuple(tensor.shape)}{f' {tensor.dtype}' * types}".replace("torch.", "")

    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    pairs = {name: (form(found[name]), form(own)) for name, own in expected.items() if name in found}
    wrong = [f"{name} {form}, expected {own}" for name, (form, own) in pairs.items() if form != own]
    if missing or unexpected or wrong:
        return f"missing {listed(missing)}; unexpected {listed(unexpected)}; other shapes: {listed(wrong)}"
    strange = [name for name, tensor in found.items() if tensor.is_floating_point() and not isfinite(tensor).all()]
    return f"NaN or infinite values in {listed(strange)}" if strange else ""
