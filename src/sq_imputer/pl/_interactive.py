"""The comparison of `pl.compare` in the browser: panels that move together, and the values below the mouse."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, named
from sq_imputer.pl import _panels
from sq_imputer.pl._compared import Look
from sq_imputer.pl._values import Values
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from spatialdata import SpatialData

    from sq_imputer.pl._browser import Comparison

MOST_VALUES = 3_000_000  # rows times genes; the page holds up to four numbers of each, of four bytes


@verb
def interactive(
    sdata: SpatialData,
    genes: str | Sequence[str],
    *,
    layer: str | None = None,
    key: str = "imputed",
    section: str | None = None,
    background: bool = True,
    vmin: float | str | None = None,
    vmax: float | str | None = None,
    cmap: str | Colormap | None = None,
    panel_px: int = 260,
) -> Comparison:
    """Compare measured, predicted, residual and standard deviation in the browser; needs the extra `interactive`.

    The panels of :func:`compare`, with its colors: measured and predicted share theirs. Pan and zoom move all panels,
    the mouse shows the name and all values of a spot and marks it in each of them, and a slider lets the tissue
    through. Several genes have a box to choose from. Nothing is asked of a network, or of Python afterwards.

    Parameters
    ----------
    sdata
        An object with predictions; it is not changed.
    genes
        One gene or several, or columns of another target; of a class its probability.
    layer
        The model; the one whose prediction was written last if not given.
    key
        Table that `tl.predict` wrote.
    section
        Of a table of several sections, which.
    background
        Embed the image below, at twice the pixels of a panel.
    vmin, vmax, cmap
        Colors of values, as :func:`compare` takes them.
    panel_px
        Width of a panel.

    Returns
    -------
    What a notebook shows as it is. `.save("comparison.html")` writes one file that opens anywhere, `.html()` returns
    its text, and `.layout` is bokeh's, to go on with or to put into an app.

    Raises
    ------
    BadInput
        If bokeh is not installed, `vmin`, `vmax`, `cmap` or `panel_px` cannot be used, or the page would be too large
        for a browser.
    MissingKey
        If the table, the layer or a gene is missing, or several models could be meant.

    Examples
    --------
    >>> page = sqi.pl.interactive(sdata, ["NUC1", "GLD1"], layer="ridge")
    >>> page.save("comparison.html").name
    'comparison.html'
    """
    if find_spec("bokeh") is None:
        raise BadInput(
            "pl.interactive needs bokeh, not installed here: pip install 'sq-imputer[interactive]'. "
            "pl.compare draws the same comparison without it."
        )
    from sq_imputer.errors import check_number
    from sq_imputer.pl._browser import Comparison

    check_number("panel_px", panel_px, 100, 2000, whole=True)
    values = Values.of(sdata, key, layer, section, named("genes", genes))
    n, n_genes = values.predicted.shape
    if n * n_genes > MOST_VALUES:
        raise BadInput(
            f"a page of {n} rows and {n_genes} genes is too much for a browser; up to {MOST_VALUES // n} genes fit, at "
            f"{MOST_VALUES} values. Name fewer genes, or open the window: sq_imputer.widget.open(sdata)."
        )
    placed = values.placed
    picture = _panels.background(placed.slide, placed.made, 2 * panel_px) if background else None
    look = Look(vmin, vmax, _panels.color_map(cmap))
    return Comparison.of(values, look, panel_px, picture, section)
