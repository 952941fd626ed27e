"""Pictures in files of others, decoded whole: a limit on what they declare, an error of ours if they are damaged."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np

from sq_imputer.errors import BadInput, SqImputerError

MOST_IMAGE = 2**35  # bytes of an image, which is decoded at once


def decode(path: Path) -> np.ndarray:
    """The pixels of an image file, as it holds them: `(y, x, 3)` uint8 of all but TIFF.

    Raises
    ------
    BadInput
        If it is not there, declares too much, or cannot be decoded.
    """
    from PIL import Image

    if not path.is_file():
        raise BadInput(f"there is no image at '{path}'.")
    if path.suffix.lower() in {".tif", ".tiff"}:
        return _decode_tiff(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # slides are larger than photographs
        try:
            with Image.open(path) as file:
                return np.asarray(file.convert("RGB"))
        except Image.DecompressionBombError as error:
            raise BadInput(f"'{path.name}': {error} Save it as TIFF, or pass an array.") from error
        except (EOFError, OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:  # all by Pillow
            raise BadInput(f"image '{path.name}' cannot be decoded: {error}. Copy or download it again.") from error


def _decode_tiff(path: Path) -> np.ndarray:
    from tifffile import TiffFile

    try:
        with TiffFile(path) as file:
            nbytes = file.series[0].nbytes if file.series else 0
            if nbytes > MOST_IMAGE:
                raise BadInput(
                    f"'{path.name}' declares an image of {nbytes / 1e9:.0f} GB; pass an array of a smaller one."
                )
            return file.asarray()
    except SqImputerError:
        raise
    except Exception as error:  # of any kind: tifffile and the codecs have no base of their own
        raise BadInput(f"image '{path.name}' cannot be decoded: {error}. Copy or download it again.") from error
