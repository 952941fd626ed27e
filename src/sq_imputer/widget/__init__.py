"""The napari widget: predict, compare and look while it thinks; and what it computes, which knows nothing of windows.

napari and Qt are imported by :func:`open` and by napari itself, never by `import sq_imputer`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput

if TYPE_CHECKING:
    from spatialdata import SpatialData

__all__ = ["open"]


def open(
    sdata: SpatialData | str | Path,
    *,
    image_key: str | None = None,
    table_key: str | None = "table",
    coordinate_system: str | None = None,
    show: bool = True,
) -> object:
    """Open a section in napari, with docks to predict, to compare, and to ask about drawn regions.

    Parameters
    ----------
    sdata
        The object, or the path of its store. Only what is asked for in the window is written to it.
    image_key, table_key, coordinate_system
        As :meth:`sq_imputer.Slide.from_sdata` takes them.
    show
        Whether the window is shown.

    Returns
    -------
    The window, a `napari.Viewer`. In a script `napari.run()` keeps it open; in IPython it stays by itself.

    Raises
    ------
    BadInput
        If napari or napari-spatialdata are not installed, or `sdata` is no SpatialData object.
    MissingKey
        If there is no such image, table or coordinate system, or several and none is named.
    """
    absent = [name for name in ("napari", "napari_spatialdata", "qtpy") if find_spec(name) is None]
    if absent:
        raise BadInput(
            f"the window needs {', '.join(absent)}, not installed here: pip install 'sq-imputer[napari]'. "
            "sq_imputer.pl.compare draws the same comparison without it."
        )
    from sq_imputer.io import read_zarr
    from sq_imputer.widget import _window
    from sq_imputer.widget.session import Session

    if isinstance(sdata, str | Path):
        sdata = read_zarr(sdata)
    return _window.open_docks(Session(sdata, image_key, table_key, coordinate_system), show)
