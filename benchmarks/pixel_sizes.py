"""What every source says of µm per pixel, for every shared section: `python benchmarks/pixel_sizes.py`.

Folders are read by the package's own readers, Space Ranger outputs by spatialdata-io where it is installed. Of every
section the transformation to µm that the reader wrote is one source; it is taken away once to see what is left.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation, remove_transformation

import sq_imputer as sqi

DATA = Path(os.environ.get("SQ_IMPUTER_DATA") or Path(__file__).parents[2] / "shared" / "data")


def sections() -> Iterator[tuple[str, SpatialData, dict]]:
    """Name, object and arguments of every section, those of Space Ranger with the scale factors of its folder."""
    legacy = sqi.datasets.her2st(DATA / "her2st", ("C2", "C3", "C4", "C5", "B4", "A1")) | sqi.datasets.mob(DATA / "mob")
    for name, sdata in legacy.items():
        yield name, sdata, {"technology": "st2k" if name.startswith("MOB") else "st"}
    yield "mouse_brain", sqi.datasets.mouse_brain(DATA / "mbrain_visium"), {"technology": "visium"}
    try:
        import spatialdata_io
    except ModuleNotFoundError:
        print("spatialdata-io is not installed: Space Ranger outputs are left out")
        return
    crop = spatialdata_io.visium(DATA / "visium_crop", dataset_id="crop")
    factors = json.loads((DATA / "visium_crop" / "spatial" / "scalefactors_json.json").read_text())
    yield "visium_crop", crop, {"image_key": "crop_hires_image"}
    crop.tables["table"].uns["spatial"] = {"crop": {"scalefactors": factors}}
    yield "visium_crop, factors", crop, {"image_key": "crop_hires_image"}
    colon = spatialdata_io.visium_hd(DATA / "visium_hd_crop", dataset_id="hd", bin_size=16)
    yield "visium_hd_crop", colon, {"image_key": "hd_hires_image", "table_key": "square_016um"}
    path = DATA / "visium_hd_crop" / "binned_outputs" / "square_016um" / "spatial" / "scalefactors_json.json"
    colon.tables["square_016um"].uns["spatial"] = {"hd": {"scalefactors": json.loads(path.read_text())}}
    yield "visium_hd_crop, factors", colon, {"image_key": "hd_hires_image", "table_key": "square_016um"}


def said(name: str, sdata: SpatialData, how: dict) -> list[dict]:
    """A row per source, with the verdict of the section."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = sqi.pp.pixel_size(sdata, **how)
        except sqi.SqImputerError as error:
            return [{"section": name, "source": "-", "µm per pixel": float("nan"), "verdict": str(error)[:90]}]
    ours = [str(one.message) for one in told if "µm per pixel" in str(one.message)]
    rows = []
    for one in (found, *found.others):
        verdict = "taken" if one is found else f"{one.mpp / found.mpp - 1:+.2%}"
        rows.append({"section": name, "source": one.source, "µm per pixel": one.mpp, "verdict": verdict})
    rows[0]["verdict"] += ", warned" if ours else ""
    return rows


def main() -> None:
    """Print the table, with the readers' transformation to µm and without it."""
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, sdata, how in sections():
            rows += said(name, sdata, how)
            if "um" not in get_transformation(next(iter(sdata.images.values())), get_all=True):
                continue
            for element in (*sdata.images.values(), *sdata.shapes.values()):
                if "um" in get_transformation(element, get_all=True):
                    remove_transformation(element, "um")
            rows += said(f"{name}, without um", sdata, how)
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".5g"))


if __name__ == "__main__":
    main()
