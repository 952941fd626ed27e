"""Published splits by name, as data."""

from __future__ import annotations

import json
from importlib.resources import files

from sq_imputer.errors import BadInput, MissingKey, listed

PARTS = ("train", "val", "test")


def published_split(name: str, *, allow_shared: bool = False) -> dict[str, list[str]]:
    """Names of the slides of a published split: `"hescape/breast"`.

    The HESCAPE splits (Gindra et al. 2025, arXiv:2508.01490) are by slide: `5k`, `multi_tissue`, `immuno_oncology`,
    `colon`, `breast`, `lung_healthy`, `skin`. Names are those of HEST-1k and of the 10x datasets. In `skin`, which the
    paper does not report, validation and test are one slide.

    Parameters
    ----------
    name
        Protocol and panel.
    allow_shared
        Give a split also where a slide is in two parts.

    Returns
    -------
    `"train"`, `"val"`, `"test"`: names of slides.

    Raises
    ------
    MissingKey
        If there is no such split.
    BadInput
        If a slide is in two parts of it, as in `skin`.

    Examples
    --------
    >>> split = sqi.bench.published_split("hescape/breast")
    """
    source, _, panel = name.partition("/")
    known = json.loads(files("sq_imputer.bench").joinpath("data/hescape.json").read_text())["panels"]
    if source != "hescape" or panel not in known:
        raise MissingKey(f"no split '{name}'; there are {listed([f'hescape/{panel}' for panel in known], 9)}.")
    found = {part: list(known[panel][part]) for part in PARTS}
    check_apart(found, allow_shared, f"split '{name}'")
    return found


def check_apart(parts: dict[str, list[str]], allow_shared: bool = False, what: str = "the split") -> None:
    """Raise `BadInput` if a name is in two parts."""
    names = [name for part in parts.values() for name in part]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and not allow_shared:
        raise BadInput(f"{what} has {listed(twice)} in two parts. Pass allow_shared=True if that is meant.")
