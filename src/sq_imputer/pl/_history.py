"""How a fit went: its losses, and what a model learned beside its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pl._skill import COLORS
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sq_imputer.predictor.base import Predictor

LOSSES = dict(zip(("train", "validation"), COLORS, strict=False))


@verb
def history(model: Predictor, *, axes: list[Axes] | None = None) -> list[Axes]:
    """Draw how the fit of a model went, as its `history` has it.

    Losses by epoch of models that are trained, with the epoch that was kept where rows were held out; of `agl` the
    cut-off in the ranking of auxiliary genes by epoch, and the mean correlation of primary genes on left-out rows
    without auxiliary genes, with all, and with those kept.

    Parameters
    ----------
    model
        A fitted model, also one that was loaded.
    axes
        Axes to draw on, one per panel; a new figure if not given.

    Returns
    -------
    The Axes.

    Raises
    ------
    BadInput
        If it is no model, or there are fewer axes than panels.
    MissingKey
        If it is not fitted, or its fit has no course (`ridge`).

    Examples
    --------
    >>> model = sqi.tl.fit(sections, "agl", genes=12, config={"primary": 4, "epochs": 4, "size_px": 64})
    >>> axes = sqi.pl.history(model)
    """
    import matplotlib.pyplot as plt

    kept = getattr(model, "history", None)
    if not isinstance(kept, dict):
        raise BadInput(f"model is a {type(model).__name__}; expected a fitted model, as tl.fit returns it.")
    panels = [name for name in DRAWN if kept.get(name)]
    if not panels:
        said = "its fit has no course to draw" if model.fitted else "it is not fitted; call tl.fit first"
        raise MissingKey(f"history of '{model.card.name}': {said}.")
    if axes is None:
        size = (4.2 * len(panels), 3.6)
        axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")[1][0]
    if len(axes) < len(panels):
        raise BadInput(f"axes has {len(axes)}; expected {len(panels)}, one per panel.")
    for name, ax in zip(panels, axes, strict=False):
        DRAWN[name](ax, kept)
        ax.spines[["top", "right"]].set_visible(False)
    return list(axes)


def _losses(ax: Axes, kept: dict) -> None:
    for name, color in LOSSES.items():
        if kept.get(name):
            ax.plot(range(1, len(kept[name]) + 1), kept[name], color=color, label=name)
    if kept.get("validation"):
        ax.axvline(kept["epochs"], color="0.6", linewidth=0.8, label="kept")
        ax.legend(frameon=False, fontsize="small")
    ax.set(xlabel="epoch", ylabel="loss", title="training")


def _cutoff(ax: Axes, kept: dict) -> None:
    ax.plot(kept["cutoff"], color=COLORS[0], marker="." if len(kept["cutoff"]) == 1 else None)
    ax.set(xlabel="epoch", ylabel="share of the ranking", ylim=(0, 1.02), title="cut-off")


def _control(ax: Axes, kept: dict) -> None:
    ax.bar(list(kept["control"]), list(kept["control"].values()), color=COLORS[5], width=0.6)
    ax.axhline(0, color="0.8", linewidth=0.8)
    ax.set(xlabel="auxiliary genes", ylabel="mean correlation on left-out rows", title="primary genes")


DRAWN = {"train": _losses, "cutoff": _cutoff, "control": _control}
