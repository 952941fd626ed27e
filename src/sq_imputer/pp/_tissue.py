from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.section import read
from sq_imputer.section.frame import Frame, read_frame
from sq_imputer.section.image import find_image
from sq_imputer.section.keys import verb
from sq_imputer.section.tissue import tissue as find_tissue
from sq_imputer.store import write

if TYPE_CHECKING:
    from spatialdata import SpatialData


@verb
def tissue(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    mpp: float | None = None,
    technology: str | None = None,
    table_key: str | None = "table",
    key_added: str = "tissue",
    overwrite: bool = False,
) -> None:
    """Add labels that are 1 where the image shows tissue, 0 on glass and on what the scanner did not see.

    What is stained has another tint than the glass around it, followed over the slide; pale tissue is known by its
    texture. Pixels are of 16 µm, larger for images of more than 2000 of them. Look at it, mend it if need be, and pass
    it to `pp.grid(tissue_key=)`.

    Parameters
    ----------
    sdata
        The object; `labels[key_added]` is written.
    image_key
        The image; may be left out if there is one.
    coordinate_system
        Along whose axes the labels lie.
    mpp, technology, table_key
        µm per pixel, as :func:`sq_imputer.pp.pixel_size` finds it.
    key_added
        Name of the labels element.
    overwrite
        Replace an element of this name.

    Raises
    ------
    BadInput
        If no tissue is found, or the name is taken.

    Examples
    --------
    >>> sqi.pp.tissue(sdata)  # look at sdata.shapes["tissue"] before a grid is laid on it
    """
    image_key = find_image(sdata, image_key)
    read.check_table_key(sdata, table_key)
    write.check_free(sdata, "labels", key_added, overwrite)
    places = {"mpp": mpp, "technology": technology, "table_key": table_key}
    frame = read_frame(sdata, image_key, coordinate_system, **places)
    mask, extent = find_tissue(frame)
    element = _labels(sdata.images[image_key], frame, mask, extent)
    write.write_element(sdata, "labels", key_added, element, overwrite=overwrite)


def _labels(image, frame: Frame, mask: np.ndarray, extent: tuple):
    """Labels of a mask in µm, with transformations to wherever the image goes."""
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import Affine

    um = (extent[1] - extent[0]) / mask.shape[1]
    to_um = np.array([[um, 0, extent[0]], [0, um, extent[3]], [0, 0, 1]])
    to_image = np.linalg.inv(frame.to_um) @ to_um
    systems = {name: Affine(read.affine(image, name) @ to_image, read.XY, read.XY) for name in read.systems(image)}
    return Labels2DModel.parse(mask.astype(np.uint8), dims=("y", "x"), transformations=systems)
