"""`sq-imputer view`: a section in napari, with the docks of sq_imputer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    store: Annotated[Path, typer.Argument(help="SpatialData store (.zarr).")],
    image_key: Annotated[str | None, typer.Option(help="Image; needed if there are several.")] = None,
    table_key: Annotated[str, typer.Option(help="Table with counts.")] = "table",
    coordinate_system: Annotated[str | None, typer.Option(help="The image's; needed if it is in several.")] = None,
) -> None:
    """Open a section in napari: predict, compare, ask about drawn regions. Needs the extra napari."""
    from sq_imputer import widget

    widget.open(store, image_key=image_key, table_key=table_key, coordinate_system=coordinate_system)
    import napari  # there: it was opened with it

    napari.run()
