"""Reading: stores that come from somewhere else, and legacy Spatial Transcriptomics folders, as SpatialData.

Visium, Visium HD, Xenium and others are read by `spatialdata-io`; what it returns can be passed to every verb as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sq_imputer.errors import BadInput, SqImputerError, listed, named
from sq_imputer.pixels.decode import decode
from sq_imputer.pixels.levels import CHUNK, halvings
from sq_imputer.section.lattice import TECHNOLOGIES, mpp_of_lattice
from sq_imputer.section.opened import open_some
from sq_imputer.store.commit import recover
from sq_imputer.store.provenance import pythonic
from sq_imputer.store.stream import open_lazily
from sq_imputer.store.write import assign
from sq_imputer.untrusted import PACKING, check_store, unpacked

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from spatialdata import SpatialData

__all__ = ["pythonic", "read_st", "read_zarr", "recover"]

DIAMETER_UM = {"visium": 55.0, "st": 100.0, "st2k": 100.0}
_FORM = "tab-separated (.tsv, .tsv.gz), or with commas (.csv)"
_COLUMNS = {
    "array_row": ("array_row", "array_y", "y"),
    "array_col": ("array_col", "array_x", "x"),
    "px": ("px", "pixel_x"),
    "py": ("py", "pixel_y"),
}


def read_zarr(path: str | Path, *, lazy_tables: bool = False, elements: Sequence[str] | None = None) -> SpatialData:
    """Open a SpatialData store in a local folder, after a look at what it says of itself.

    Use it for stores of others. Before anything is opened, these are refused: codecs other than the usual ones (pickle
    runs code), arrays and chunks of absurd size, links, metadata that is too large or too deep. Nothing is computed,
    and the store is not changed.

    Parameters
    ----------
    path
        The folder of the store.
    lazy_tables
        Leave `X`, the layers and `obsm` of all tables in the store, as dask arrays, and read only `obs`, `var` and
        `uns`. For tables that do not fit into memory: :func:`sq_imputer.tl.fit`, `tl.predict` and `tl.score` read of
        them the genes of the panel and the library size, in blocks. (SpatialData 0.7 and 0.8 refuse what
        `anndata.experimental.read_lazy` itself returns, since its `obs` is no data frame.)

    elements
        Names of the elements to open; all if left out. Tables are lazy then, and shapes come as circles, decoded some
        thousand at a time: polygons as circles around their centers, as wide as squares of their area, which is all
        that models see of them. For stores of millions of bins or cells. Save such an object elsewhere only if you
        want circles.

    Raises
    ------
    MissingKey
        If there is no element of a name.
    BadInput
        If there is no SpatialData store (an AnnData store or an `.h5ad` file is none), something in it is refused, or
        it cannot be opened.
    """
    import spatialdata

    check_store(path)
    try:
        if elements is not None:
            return open_some(Path(path).resolve(), named("elements", elements))
        return _with_lazy_tables(Path(path)) if lazy_tables else spatialdata.read_zarr(path)
    except SqImputerError:
        raise
    except (AssertionError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(
            f"the store '{path}' is damaged: {type(error).__name__} {error}. If a program was killed while it wrote "
            "there, sq_imputer.io.recover(path) clears away what sq_imputer left; else copy the store again."
        ) from error


def _with_lazy_tables(path: Path) -> SpatialData:
    import spatialdata
    import zarr

    sdata = spatialdata.read_zarr(path, selection=("images", "labels", "shapes", "points"))
    store = zarr.open_group(path, mode="r")
    for key in store["tables"].group_keys() if "tables" in store else ():
        assign(sdata, "tables", key, open_lazily(path / "tables" / key))
    return sdata


def read_st(
    image: str | Path | np.ndarray,
    counts: str | Path | pd.DataFrame,
    spots: str | Path | pd.DataFrame,
    *,
    mpp: float | None = None,
    technology: str | None = None,
    patient: str | None = None,
    section: str | None = None,
    spot_diameter_um: float | None = None,
) -> SpatialData:
    """A legacy Spatial Transcriptomics section: an image, a counts table and spot positions.

    Spots without a row in `counts` become circles that are not measured: in the shapes, not in the table. Rows of
    `counts` without a position are left out. The image is decoded at once.

    Parameters
    ----------
    image
        Path of a JPEG, PNG or TIFF, or `(y, x, 3)` or `(3, y, x)` uint8.
    counts
        Path of a tab-separated table (`.tsv`, `.tsv.gz`; commas in `.csv`), or a DataFrame: barcodes × genes, integers.
    spots
        Path of a table, or a DataFrame, with columns `array_x, array_y` (array positions) and `px, py` (pixels from the
        top left corner); `x, y`, `array_col, array_row` and `pixel_x, pixel_y` are understood. Barcodes are the
        column `barcode`, else the index, else `XxY`; and barcodes `XxY` can stand for array positions.
    mpp
        µm per pixel; found from the lattice of `technology` if left out.
    technology
        `"st"` (200 µm between spots), `"st2k"` (150 µm) or `"visium"` (100 µm).
    patient
        Individual, written to `obs["patient"]`; not known if left out.
    section
        Name of the section; the name of the image file if left out.
    spot_diameter_um
        Diameter of a spot; 100 µm for `"st"` and `"st2k"`, 55 µm for `"visium"` if left out.

    Returns
    -------
    Image `"he"` (multiscale), shapes `"spots"`, table `"table"`; coordinate systems `"global"` (pixels) and `"um"`.

    Raises
    ------
    BadInput
        If columns are missing, names are duplicated, no barcode is in both tables, values are not counts, no spot lies
        on the image, or µm per pixel cannot be known.
    """
    if technology is None and (mpp is None or spot_diameter_um is None):
        raise BadInput(
            "the size of a pixel or of a spot is not known: pass technology= (one of "
            f"{listed(TECHNOLOGIES)}), or both mpp= (µm per pixel) and spot_diameter_um=."
        )
    positions = _positions(_table(spots))
    frame = _counts_frame(counts) if isinstance(counts, str | Path) else counts
    rows = _matching_rows(frame, positions.index)
    values = _sparse(frame.iloc[rows[rows >= 0]])
    pixels = _pixels(image)
    _check_on_image(positions, pixels.shape[1:])
    if mpp is None:
        mpp = mpp_of_lattice(positions[["px", "py"]], positions[["array_row", "array_col"]], technology)
    return assemble(
        pixels,
        positions.assign(measured=rows >= 0),
        values,
        list(frame.columns),
        mpp=mpp,
        spot_diameter_um=spot_diameter_um or DIAMETER_UM[technology],
        section=section or (Path(image).stem if isinstance(image, str | Path) else "section"),
        patient=patient,
    )


def assemble(
    pixels: np.ndarray,
    spots: pd.DataFrame,
    counts: csr_matrix,
    genes: list[str],
    *,
    mpp: float,
    spot_diameter_um: float,
    section: str,
    patient: str | None = None,
) -> SpatialData:
    """One section in the conventions of this package.

    Parameters
    ----------
    pixels
        `(3, y, x)` uint8.
    spots
        Indexed by barcode: `px, py` in pixels, `measured`, `array_row`, `array_col`; other columns go to `obs`.
    counts
        `(measured spots, genes)`, in the order of `spots`.
    genes
        Names of the columns of `counts`.
    mpp
        µm per pixel.
    spot_diameter_um
        Diameter of the circles.
    section
        Name of the section.
    patient
        Individual, if known.
    """
    import dask.array as da
    from anndata import AnnData
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    systems = {"global": Identity(), "um": Scale([mpp, mpp], axes=("x", "y"))}
    times = halvings(pixels.shape[1:])
    whole = _padded(pixels, 2**times)
    image = Image2DModel.parse(
        whole,
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2] * times,
        chunks=(3, CHUNK, CHUNK),
        transformations=systems,
    )
    # Else every look at a coarse level would compute it anew from the finest.
    for level in list(image.values())[1:]:
        whole = _halved(whole)
        level["image"].data = da.from_array(whole, chunks=(3, CHUNK, CHUNK))
    radius = spot_diameter_um / 2 / mpp
    shapes = ShapesModel.parse(spots[["px", "py"]].to_numpy(float), geometry=0, radius=radius, transformations=systems)
    shapes["barcode"] = spots.index.astype(str).to_numpy(dtype=object)
    obs = spots.assign(region=pd.Categorical(["spots"] * len(spots)), spot_id=np.arange(len(spots)))
    if patient is not None:
        obs["patient"] = pd.Categorical([patient] * len(obs))
    obs = obs[obs["measured"]].drop(columns=["px", "py", "measured"])
    table = AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=object)))
    table = TableModel.parse(table, region="spots", region_key="region", instance_key="spot_id")
    known = {"section": section} | ({"patient": patient} if patient is not None else {})
    return SpatialData(images={"he": image}, shapes={"spots": shapes}, tables={"table": table}, attrs=known)


def _padded(pixels: np.ndarray, multiple: int) -> np.ndarray:
    """The picture, its last row and column repeated to a multiple: levels of other sizes lie beside where they say."""
    return np.pad(pixels, [(0, 0), *((0, -n % multiple) for n in pixels.shape[1:])], mode="edge")


def _halved(pixels: np.ndarray) -> np.ndarray:
    """Means of two by two pixels, without fractions: the levels that spatialdata makes, in a fraction of the time."""
    total = pixels[:, ::2, ::2].astype(np.uint16)
    for y, x in ((0, 1), (1, 0), (1, 1)):
        total += pixels[:, y::2, x::2]
    return (total >> 2).astype(np.uint8)


def _separator(path: Path) -> str:
    return "," if ".csv" in path.suffixes else "\t"


@contextmanager
def _reading(path: Path) -> Iterator[BytesIO]:
    """The content of a table, unpacked; what cannot be read or understood is said with the name of the file."""
    if not path.is_file():
        raise BadInput(f"there is no table at '{path}'.")
    try:
        yield BytesIO(unpacked(path))
    except SqImputerError:
        raise
    except (*PACKING, ValueError) as error:  # pandas raises kinds of ValueError
        raise BadInput(f"table '{path.name}' cannot be read: {error}. Is it complete, and {_FORM}?") from error


def _table(source: str | Path | pd.DataFrame) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source
    with _reading(Path(source)) as text:
        frame = pd.read_csv(text, sep=_separator(Path(source)))
    # a first column without a name is an index that was written along
    return frame.set_index(frame.columns[0]) if str(frame.columns[0]).startswith("Unnamed") else frame


def _counts_frame(path: str | Path) -> pd.DataFrame:
    path = Path(path)
    with _reading(path) as text:
        genes = text.readline().decode().rstrip("\r\n").split(_separator(path))
        # the header is read apart, since pandas renames duplicated columns without a word
        frame = pd.read_csv(text, sep=_separator(path), header=None, index_col=0, low_memory=False)
    genes = [gene.strip('"') for gene in (genes[1:] if len(genes) > frame.shape[1] else genes)]
    if len(genes) != frame.shape[1]:
        raise BadInput(f"counts '{path.name}' names {len(genes)} columns and has {frame.shape[1]}.")
    return frame.set_axis(genes, axis=1)


def _positions(frame: pd.DataFrame) -> pd.DataFrame:
    """Spots indexed by barcode, with columns `array_row, array_col, px, py`."""
    if "barcode" in frame:
        frame = frame.set_index("barcode")
    named = not pd.api.types.is_numeric_dtype(frame.index)
    if named and not set(_COLUMNS["array_col"]) & set(frame):
        frame = _array_from_barcodes(frame)
    found = {name: next((c for c in choices if c in frame), None) for name, choices in _COLUMNS.items()}
    missing = [" or ".join(f"'{c}'" for c in _COLUMNS[name]) for name, column in found.items() if column is None]
    if missing:
        raise BadInput(f"spots have no column {'; no '.join(missing)}; they have {listed(frame.columns, 12)}.")
    spots = pd.DataFrame({name: frame[column].to_numpy() for name, column in found.items()})
    spots.index = frame.index.astype(str) if named else _barcodes(spots)
    if not spots.index.is_unique:
        raise BadInput(f"spots have duplicated barcodes: {listed(spots.index[spots.index.duplicated()].unique())}.")
    try:
        place = spots[["px", "py"]].to_numpy(dtype=float)
    except ValueError as error:
        raise BadInput(f"spot positions px, py must be numbers: {error}.") from error
    if not np.isfinite(place).all():
        nowhere = spots.index[~np.isfinite(place).all(axis=1)]
        raise BadInput(f"spots have no pixel position: {listed(nowhere)}. Drop them.")
    return spots


def _barcodes(spots: pd.DataFrame) -> pd.Index:
    columns, rows = (np.rint(spots[name].to_numpy(float)).astype(int) for name in ("array_col", "array_row"))
    return pd.Index([f"{x}x{y}" for x, y in zip(columns, rows, strict=True)])


def _array_from_barcodes(frame: pd.DataFrame) -> pd.DataFrame:
    parts = [re.fullmatch(r"([\d.]+)x([\d.]+)", str(barcode)) for barcode in frame.index]
    if not all(parts):
        return frame
    return frame.assign(array_col=[float(part[1]) for part in parts], array_row=[float(part[2]) for part in parts])


def _matching_rows(frame: pd.DataFrame, barcodes: pd.Index) -> np.ndarray:
    """Row in the counts of every spot; -1 where it has none."""
    for what, names in (("barcodes", frame.index), ("genes", frame.columns)):
        if not names.is_unique:
            twice = names[names.duplicated()].unique()
            raise BadInput(f"counts have duplicated {what}: {listed(twice)}. Sum them or rename them first.")
    rows = pd.Index(frame.index.astype(str)).get_indexer(barcodes)
    if (rows < 0).all():
        raise BadInput(
            f"no barcode is in both tables: counts have {listed(frame.index, 3)}, spots have {listed(barcodes, 3)}. "
            "Rows of counts must be barcodes; transpose it if they are genes."
        )
    return rows


def _sparse(frame: pd.DataFrame) -> csr_matrix:
    from scipy.sparse import csr_matrix

    values = frame.to_numpy()
    if values.dtype.kind not in "biuf":
        kinds = frame.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]
        raise BadInput(f"counts are not numbers in {listed(kinds)}; expected barcodes as rows and genes as columns.")
    bad = ~np.isfinite(values) | (values < 0) | (values != np.rint(values))
    if bad.any():
        raise BadInput(
            f"counts hold {int(bad.sum())} values of {values.size} that are not counts, such as {values[bad][0]:.4g}; "
            "expected raw UMIs, not normalized ones."
        )
    return csr_matrix(values, dtype=np.float32)


def _pixels(image: str | Path | np.ndarray) -> np.ndarray:
    """`(3, y, x)` uint8 from a file or an array."""
    array = np.asarray(image) if not isinstance(image, str | Path) else decode(Path(image))
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise BadInput(f"the image has shape {array.shape} and dtype {array.dtype}; expected (y, x, 3), uint8.")
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def _check_on_image(spots: pd.DataFrame, shape: tuple[int, int]) -> None:
    height, width = shape
    inside = spots["px"].between(0, width) & spots["py"].between(0, height)
    if not inside.any():
        first = spots.iloc[0]
        raise BadInput(
            f"no spot lies on the image of {width} × {height} px; the first is at ({first.px:.0f}, {first.py:.0f}). "
            "px, py must be pixels of this image: were they taken from a larger copy, or x and y swapped?"
        )
