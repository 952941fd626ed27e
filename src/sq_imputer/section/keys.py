"""Where image, shapes and counts of a section are found in an object."""

from __future__ import annotations

from typing import TypedDict


class SlideKeys(TypedDict, total=False):
    """The arguments of `Slide.from_sdata`, which every verb hands on."""

    image_key: str | None
    shapes_key: str | None
    table_key: str | None
    coordinate_system: str | None
    mpp: float | None
    technology: str | None
    layer: str | None
    patient_key: str
    outside: str
    missing: str
