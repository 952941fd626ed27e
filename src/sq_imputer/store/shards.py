"""The files of a journal: results for some rows, written whole or not at all, behind the sha256 of their content."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

import numpy as np

from sq_imputer.errors import StoreError

_DIGEST = 64  # characters of a sha256, before the content

Parts = dict[str, np.ndarray]


def packed(rows: np.ndarray, parts: Parts) -> bytes:
    """The content of a shard."""
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(values) for name, values in {"rows": rows, **parts}.items()})
    return hashlib.sha256(content).hexdigest().encode() + content


def replace_file(path: Path, content: bytes) -> None:
    """All of a file or nothing of it, also when the power fails, or two processes write it at once.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    new = path.with_suffix(f".{secrets.token_hex(4)}.new")
    try:
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise unwritable(path.parent, error) from error


def unwritable(folder: Path, error: OSError) -> StoreError:
    """What is said where a journal cannot be written."""
    return StoreError(
        f"the journal of this run in '{folder}' cannot be written: {error.strerror}. Make room or give "
        "permission there and call again with resume=True, which goes on with what it holds; or pass output_path= "
        "on another disk."
    )


def read_shard(path: Path, rows: np.ndarray) -> Parts | None:
    """What a shard holds for these rows; None if there is none, or not as it was written."""
    from safetensors.numpy import load

    if not path.is_file():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content[_DIGEST:]).hexdigest().encode() != content[:_DIGEST]:
        return None
    parts = load(content[_DIGEST:])
    return parts if np.array_equal(parts.pop("rows"), rows) else None
