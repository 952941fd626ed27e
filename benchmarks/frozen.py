"""Sections frozen to small files: counts, places and texture features, so that a benchmark runs where no reader is.

    python benchmarks/frozen.py TO_FOLDER [--data FOLDER]        # then: benchmarks/stem.py --data TO_FOLDER

A frozen section is a `Slide` without its image: it serves models that see the features of the default views only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

import sq_imputer as sqi
from sq_imputer.section.counts import Counts
from sq_imputer.section.frame import Frame
from sq_imputer.section.pixel_size import PixelSize
from sq_imputer.section.slide import Slide

SETS = {"her2st": "her2st", "mob": "mob", "mouse_brain": "mbrain_visium"}
TUNING = ("A1", "B4")  # sections of her2st that no figure is quoted on: settings are chosen there


def read(name: str, data: Path | None) -> list[Slide]:
    """Slides of a set, from published files or from a frozen folder; `"tuning"` is A1 and B4 of her2st."""
    if data is not None and (data / name).is_dir() and any((data / name).glob("*.npz")):
        return [thaw(path) for path in sorted((data / name).glob("*.npz"))]
    kind, more = ("her2st", {"sections": TUNING}) if name == "tuning" else (name, {})
    sections = getattr(sqi.datasets, kind)(None if data is None else data / SETS[kind], **more)
    sections = sections if isinstance(sections, dict) else {name: sections}
    return [Slide.from_sdata(sdata, section=key) for key, sdata in sections.items()]


def freeze(slide: Slide, path: Path) -> None:
    """Write a slide without its image."""
    model = sqi.get_model("ridge")()
    counts = slide.counts.columns(range(slide.counts.shape[1]))
    views = {f"view{i}": slide.features("texture", spec) for i, spec in enumerate(model.needs.views)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        **views,
        xy_um=slide.xy_um,
        size_um=slide.size_um,
        measured=slide.measured,
        names=slide.names.astype(str),
        counts_data=counts.data.astype(np.float32),
        counts_indices=counts.indices,
        counts_indptr=counts.indptr,
        var_names=np.array(slide.var_names),
        group=slide.group,
        section=slide.section,
        mpp=slide.frame.pixel.mpp,
    )


def thaw(path: Path) -> Slide:
    """A slide that :func:`freeze` wrote. Its pixels are µm."""
    with np.load(path) as file:
        held = dict(file)
    n, genes = len(held["xy_um"]), tuple(held["var_names"].tolist())
    counts = csr_matrix((held["counts_data"], held["counts_indices"], held["counts_indptr"]), shape=(n, len(genes)))
    names = held["names"].astype(object)
    keys = dict.fromkeys(("image_key", "shapes_key", "table_key", "coordinate_system", "layer"), "")
    frame = Frame(None, PixelSize(float(held["mpp"]), "frozen"), np.eye(3), "um")
    slide = Slide(
        frame,
        held["xy_um"],
        held["size_um"],
        names,
        names,
        held["measured"],
        Counts.of(counts),
        genes,
        str(held["group"]),
        str(held["section"]),
        keys,
    )
    needs = sqi.get_model("ridge")().needs
    slide.checked.skip(needs)  # there is no image to hold crops
    for i, spec in enumerate(needs.views):
        slide.remember("texture", spec, held[f"view{i}"], {})
    return slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st, mob, ...; or SQ_IMPUTER_DATA")
    args = parser.parse_args()
    for name in (*SETS, "tuning"):
        for slide in read(name, args.data):
            freeze(slide, args.folder / name / f"{slide.section}.npz")


if __name__ == "__main__":
    main()
