"""Large files of text, gzipped or not, a piece at a time: what has no lines does not fill the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sq_imputer import untrusted
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.untrusted import PACKING

PIECE = 2**24  # bytes that are read at a time
LONGEST = 2**20  # bytes of a line


def is_packed(path: Path) -> bool:
    """Whether a file, which must be there, is gzipped."""
    _check_there(path)
    return untrusted.is_packed(path)


def opened(path: Path) -> BinaryIO:
    """The bytes of a file, which must be there, unpacked while they are read."""
    _check_there(path)
    return untrusted.opened(path)


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise MissingKey(f"no file '{path}'; give the path of one.")


def pieces(path: Path, what: str) -> Iterator[bytes]:
    """Whole lines of a file, some millions of bytes at a time.

    Raises
    ------
    MissingKey
        If there is no such file.
    BadInput
        If it is damaged, or has lines that no such file has; `what` names it.
    """
    rest = b""
    with opened(path) as file:
        while piece := _read(file, path, what):
            rest += piece
            end = rest.rfind(b"\n") + 1
            if len(rest) - end > LONGEST:
                raise BadInput(f"{what}: '{path}' has a line of more than {LONGEST} bytes; expected a table of text.")
            if end:
                yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _read(file: BinaryIO, path: Path, what: str) -> bytes:
    try:
        return file.read(PIECE)
    except PACKING as error:
        raise BadInput(f"{what}: '{path}' is damaged: {error}. Copy or download it again.") from error


def lines(path: Path, what: str) -> Iterator[str]:
    """Lines of a file in UTF-8, without their ends; empty ones are left out."""
    for piece in pieces(path, what):
        try:
            text = piece.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadInput(f"{what}: '{path}' is no text in UTF-8: {error}. Copy or download it again.") from error
        yield from (line for line in text.splitlines() if line.strip())
