from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sq_imputer.contract import CropSpec
from sq_imputer.encoders import get_encoder
from sq_imputer.errors import BadInput
from sq_imputer.section import read
from sq_imputer.section.features import compute, in_rows, key, reader
from sq_imputer.section.keys import verb
from sq_imputer.section.slide import Slide
from sq_imputer.store import write

if TYPE_CHECKING:
    from typing import Unpack

    from spatialdata import SpatialData

    from sq_imputer.section.keys import SlideKeys


@verb
def embed(
    sdata: SpatialData,
    encoder: str = "texture",
    *,
    spec: CropSpec | None = None,
    key_added: str | None = None,
    weights: str | Path | None = None,
    revision: str | None = None,
    device: str = "auto",
    **keys: Unpack[SlideKeys],
) -> None:
    """Write features of the crop of every spot into the table that annotates them.

    Models that need the same encoder on the same crop of the same image use them instead of computing them again.

    Parameters
    ----------
    sdata
        The object; `tables[table_key].obsm[key_added]` is written, and `uns["sq_imputer"]["embeddings"]`.
    encoder
        Name of an encoder, see :func:`sq_imputer.encoders.list_encoders`.
    spec
        What it sees; 112 µm in 224 pixels if left out.
    key_added
        Name in `obsm`; `"X_<encoder>"` if left out.
    weights, revision
        A safetensors file, or a revision in the hub, as :func:`sq_imputer.encoders.get_encoder` takes them.
    device
        Where the encoder runs.
    **keys
        Where to find image, shapes and table, as :meth:`sq_imputer.Slide.from_sdata` takes them.
    """
    spec = CropSpec.of(spec)
    key_added = key_added or key(encoder, spec)
    if not write.is_word(key_added, "spatial"):
        raise BadInput(
            f"key_added is {key_added!r}; expected letters, digits, '_', '-' and '.' only, not 'spatial', and no more "
            f"than {write.MOST_BYTES} bytes."
        )
    slide = Slide.from_sdata(sdata, **keys)
    shapes_key, table_key = slide.keys["shapes_key"], keys.get("table_key", "table")
    table = read.find_table(sdata, table_key, shapes_key)
    rows, where = slide.rows_in(table, table_key)
    encode = get_encoder(encoder, weights=weights, revision=revision)
    slide.checked.crops(slide.crops(spec))
    crops = reader(slide.frame, slide.centers_px, spec, encode, slide.names)
    values = compute(crops, encode, device=device, label=f"{encoder} of {slide.section}")
    slide.remember(encoder, spec, values, encode.provenance)
    full = in_rows(table, key_added, rows, values[where])
    record = {key_added: slide.record(encoder, spec)}
    known = table.uns.get("sq_imputer", {}).get("embeddings", {})
    write.put_layers(
        sdata, table_key, {}, obsm={key_added: full}, uns={"sq_imputer": {"embeddings": {**known, **record}}}
    )
