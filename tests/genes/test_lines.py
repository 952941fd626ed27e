"""Lines of large files come whole, however the file is cut into pieces; what has none is refused early."""

from __future__ import annotations

import gzip

import pytest

import sq_imputer as sqi
from sq_imputer.genes import lines as module
from sq_imputer.genes.lines import is_packed, lines, pieces

TEXT = "one\n\ntwo and three\r\nfour"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_lines_are_whole_whatever_a_piece_is(packed, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", piece)
    path = tmp_path / "some.file"
    path.write_bytes(gzip.compress(TEXT.encode()) if packed else TEXT.encode())
    assert is_packed(path) == packed
    assert b"".join(pieces(path, "it")).decode() == TEXT
    assert all(part.endswith(b"\n") for part in list(pieces(path, "it"))[:-1])
    assert list(lines(path, "it")) == ["one", "two and three", "four"]


def test_a_file_without_lines_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """A megabyte may unpack to a gigabyte."""
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"0" * 2**22))
    monkeypatch.setattr(module, "PIECE", 2**20)
    read = []
    whole = module._read
    monkeypatch.setattr(module, "_read", lambda *args: read.append(1) or whole(*args))
    with pytest.raises(sqi.BadInput, match=r"it: .*has a line of more than 1048576 bytes"):
        list(lines(path, "it"))
    assert len(read) == 2


def test_damaged_files_and_other_bytes_are_said(tmp_path):
    path = tmp_path / "some.file"
    path.write_bytes(gzip.compress(TEXT.encode() * 100)[:-9])
    with pytest.raises(sqi.BadInput, match="annotation: .* is damaged"):
        list(lines(path, "annotation"))
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(sqi.BadInput, match="is no text in UTF-8"):
        list(lines(path, "annotation"))
    with pytest.raises(sqi.MissingKey, match="no file"):
        list(lines(tmp_path / "none", "annotation"))
