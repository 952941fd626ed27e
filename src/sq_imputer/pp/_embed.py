from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sq_imputer.contract import CropSpec
from sq_imputer.device import pick_device
from sq_imputer.encoders import encoder_card, from_callable, get_encoder, in_blocks
from sq_imputer.errors import BadInput, check_number
from sq_imputer.pp._tokens import check_key, write_tokens
from sq_imputer.section import read
from sq_imputer.section.features import compute, described_together, in_rows, key, reader
from sq_imputer.section.keys import verb
from sq_imputer.section.slide import Slide
from sq_imputer.store import write

if TYPE_CHECKING:
    from typing import Unpack

    import numpy as np
    from anndata import AnnData
    from spatialdata import SpatialData

    from sq_imputer.section.keys import SlideKeys


@verb
def embed(
    sdata: SpatialData,
    encoder: str | Callable[[Any], Any] = "texture",
    *,
    spec: CropSpec | None = None,
    name: str | None = None,
    transform: Callable[[Any], Any] | None = None,
    key_added: str | None = None,
    overwrite: bool = False,
    weights: str | Path | None = None,
    revision: str | None = None,
    dense: bool | None = None,
    tokens: bool | int = False,
    device: str = "auto",
    **keys: Unpack[SlideKeys],
) -> None:
    """Write features of the crop of every spot into the table that annotates them, or into one of their own.

    Models that need the same encoder on the same crop of the same image use those of the table instead of computing
    them again. Shapes that no table annotates (a grid, cells, labels) get a table of which the features are `X`.

    Parameters
    ----------
    sdata
        The object; `tables[table_key].obsm[key_added]` is written, and `uns["sq_imputer"]["embeddings"]`. Where
        `table_key` does not annotate the shapes, `tables[key_added]` is.
    encoder
        Name of an encoder, see :func:`sq_imputer.encoders.list_encoders`; or a torch module or a function, as
        :func:`sq_imputer.encoders.from_callable` takes them.
    spec
        What it sees; 112 µm in 224 pixels if left out.
    name
        What a module or function is called.
    transform
        Called with the crops before the module or function.
    key_added
        Name in `obsm`, `"X_<encoder>"` if left out; or of the table, `"<encoder>_features"` if left out.
    overwrite
        Replace a table of this name. What `obsm` has of this name is always replaced.
    weights, revision
        A safetensors file, or a revision in the hub, as :func:`sq_imputer.encoders.get_encoder` takes them.
    dense
        Whether windows are described together, as in :func:`sq_imputer.tl.predict`.
    tokens
        What the encoder says of the parts of the crops, `tokens` along a side (True: as many as it has), as rows of a
        table `tables[key_added]`, `"<encoder>_tokens"` if left out, with their places on the lattice that all parts
        make. For crops that lie edge to edge: `pp.grid(sdata, square=True, spacing_um=spec.extent_um)` makes them.
    device
        Where the encoder runs.
    **keys
        Where to find image, shapes and table, as :meth:`sq_imputer.Slide.from_sdata` takes them.

    Raises
    ------
    MissingKey
        If an encoder or a key is missing.
    BadInput
        If a name is none or taken, or the encoder cannot be had or asked.

    Examples
    --------
    >>> sqi.pp.embed(sdata, shapes_key="spots")
    >>> features = sdata.tables["table"].obsm["X_texture"]
    """
    spec = CropSpec.of(spec)
    encoder = _named(encoder, name, transform, spec)
    slide = Slide.from_sdata(sdata, **keys)
    built = partial(get_encoder, encoder, weights=weights, revision=revision)
    if tokens:
        check_number("tokens", int(tokens), 1, whole=True)
        if dense:
            raise BadInput("dense=True, but tokens are those of crops alone. Leave out dense=, or tokens=.")
        place = {"key_added": key_added, "overwrite": overwrite, "device": device}
        write_tokens(sdata, slide, built(), spec, None if tokens is True else int(tokens), **place)
    else:
        _write_features(sdata, slide, encoder, spec, built, key_added, overwrite, dense, device)


def _write_features(sdata, slide: Slide, encoder: str, spec: CropSpec, built, key_added, overwrite, dense, device):
    """Compute features of the crops of all rows, and write them where they belong."""
    table_key = slide.keys["table_key"]
    annotates = slide.keys["shapes_key"] in read.annotated(sdata, table_key)
    key_added = key_added or (key(encoder, spec) if annotates else f"{encoder_card(encoder).slot}_features")
    check_key(key_added)
    if not annotates:
        write.check_free(sdata, "tables", key_added, overwrite)
    device = pick_device(device)
    encode = in_blocks(built()) if dense else built()
    slide.checked.crops(slide.crops(spec))
    crops = reader(slide.frame, slide.centers_px, spec, encode, slide.names, dense)
    values = compute(crops, encode, device=device, label=f"{encoder} of {slide.section}")
    slide.remember(encoder, spec, values, {**encode.provenance, "dense": described_together(crops)})
    record = slide.record(encoder, spec)
    if annotates:
        _beside_counts(sdata, table_key, slide, key_added, values, record)
    else:
        write.write_element(sdata, "tables", key_added, _table(slide, encoder, values, record), overwrite=overwrite)


def _named(encoder: str | Callable[[Any], Any], name: str | None, transform: Callable | None, spec: CropSpec) -> str:
    """The name of an encoder, which a function gets here."""
    if not callable(encoder):
        if name is not None or transform is not None:
            raise BadInput(f"name= and transform= are of a module or a function; leave them out for '{encoder}'.")
        return encoder
    return from_callable(encoder, name or "", size_px=spec.size_px, mpp=spec.mpp, transform=transform).name


def _beside_counts(sdata: SpatialData, table_key: str, slide: Slide, name: str, values, record: dict) -> None:
    """Keep features in `obsm` of the table that annotates the rows."""
    table = sdata.tables[table_key]
    rows, where = slide.rows_in(table, table_key)
    known = table.uns.get("sq_imputer", {}).get("embeddings", {})
    obsm = {name: in_rows(table, name, rows, values[where])}
    uns = {"sq_imputer": {"embeddings": {**known, name: record}}}
    write.put_layers(sdata, table_key, {}, obsm=obsm, uns=uns)


def _table(slide: Slide, encoder: str, values: np.ndarray, record: dict) -> AnnData:
    """A table of which the features are X."""
    return write.new_table(
        values,
        slide.names.astype(str),
        [f"{encoder_card(encoder).slot}_{k}" for k in range(values.shape[1])],
        region=slide.keys["shapes_key"],
        instance_key="instance_id",
        instances=slide.instances,
        obsm={"spatial": slide.xy_um},
        uns={"sq_imputer": {"embeddings": {"X": record}}},
    )
