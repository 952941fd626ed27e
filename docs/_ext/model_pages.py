"""One page per registered model, made from its card, the docstring of its file, and its `Config`."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

from sq_imputer import get_model, list_models

CARD = {
    "paper": "Paper",
    "established": "From the publication",
    "ours": "Ours",
    "limits": "Limits",
    "uncertainty": "Uncertainty",
    "license": "License",
}
FIGURES = Path(__file__).resolve().parent.parent / "_static" / "models"  # written by benchmarks/maps.py
CAPTION = (
    "{what} Rows are genes, spots have their true size, all but the standard deviation share the colors of their row; "
    "r is Pearson over the spots. Section C2 of her2st, which no model has seen: all were fitted on C3, C4 and C5 of "
    "the same patient, replicates of one tumor and not new patients. Made by `python benchmarks/maps.py`. Data: her2st "
    "(Andersson et al. 2021), CC BY 4.0."
)
CALLED = {
    "spots": "sqi.tl.predict(sdata, model={name})",
    "genes": "sqi.tl.sequence_prior(sdata, windows, model={name})  # windows: sqi.GeneWindows",
}
OWN = {  # pictures of their own, with all that is to be said of them
    "bg_triplex": "Measured, and as `triplex` and `bg_triplex` predict it; below, what guides the latter: a pale and a "
    "dark crop, the edges found there, and the borders of nuclei. Markers of plasma cells, stroma and tumor cells, "
    "not chosen by score; r is Pearson over the spots. Section C2 of her2st, fitted on C3, C4 and C5 of the same "
    "patient, replicates of one tumor and not new patients. Made by "
    "`python benchmarks/guided.py`. Data: her2st "
    "(Andersson et al. 2021), CC BY 4.0.",
    "comtip": "Measured; predicted by two models that know a gene by gene sets and its name alone, all genes of its "
    "chromosome having been left out of the fit; and by ridge, fitted on the gene itself. Markers of plasma cells, "
    "stroma and tumor epithelium, not chosen by score: with `comtip` the three look much alike, and one is wrong. "
    "Colors of every map run from its own 5th to its 95th percentile, as a gene that nobody measured has no level; r "
    "is Pearson over the spots. Section C2 of her2st, fitted on C3, C4 and C5 of the same patient, replicates of one "
    "tumor. Made by `python benchmarks/zero_shot.py --cases C2 --picture docs/_static/models/comtip.png`. Data: her2st "
    "(Andersson et al. 2021), CC BY 4.0.",
    "seq2exp": "A motif of 9 bp is planted into real yeast DNA and raises expression where a track is high. Left, "
    "masks along four windows that no model has seen: green, a motif where the track is high, which raises expression; "
    "blue, the motif alone; orange, the track alone. Right, the highest mask near each site. Made by "
    "`python benchmarks/sequence.py --parts motif --pictures docs/_static`.",
}
SHOWN = {
    "stem": "Measured; mean and standard deviation of 20 samples; one of these samples.",
    "mclstexp": "Measured and predicted; right, where on the training sections the neighbors of the ringed spot lie, "
    "that of the highest prediction of the first gene. Their areas are weights, their colors that gene as measured.",
    "maps": "Three genes as measured, and as ridge, Stem and mclSTExp predict them.",
}


def figure(name: str) -> list[str]:
    """The picture of a model, if there is one."""
    if not (FIGURES / f"{name}.png").is_file():
        return []
    what = SHOWN.get(name, "Measured and predicted.")
    caption = OWN.get(name) or CAPTION.format(what=what)
    return [f"```{{figure}} ../_static/models/{name}.png\n:alt: {caption.partition('.')[0]}.\n\n{caption}\n```"]


def settings(model: type) -> str:
    """A table of the fields of `Config`: defaults, and those of its named forms."""
    forms = {"default": model.Config(), "`Config.small()`": model.Config.small()}
    if hasattr(model.Config, "paper"):
        forms["`Config.paper()`"] = model.Config.paper()
    rows = [
        " | ".join(["", f"`{f.name}`", *(f"`{getattr(form, f.name)!r}`" for form in forms.values()), ""]).strip()
        for f in fields(model.Config)
    ]
    return "\n".join([f"| field | {' | '.join(forms)} |", "|---" * (1 + len(forms)) + "|", *rows])


def page(name: str) -> str:
    """The page of a model, in MyST markdown."""
    model = get_model(name)
    card, module = model.card, model.__module__
    paper = f"{card.paper} [doi:{card.doi}](https://doi.org/{card.doi})" if card.doi.startswith("10.") else card.paper
    texts = {title: getattr(card, key) for key, title in CARD.items()} | {"Paper": paper}
    rows = [f"{title}\n: {text}\n" for title, text in texts.items() if text]
    parts = [
        f"# `{name}`",
        card.summary,
        f"```python\n{CALLED[card.rows].format(name=repr(name))}\n```",
        *figure(name),
        "## Card",
        *rows,
        "## Method",
        f"```{{eval-rst}}\n{sys.modules[module].__doc__}\n```",
        "## Configuration",
        settings(model),
        f"```{{eval-rst}}\n.. autoclass:: {module}.Config\n   :no-index:\n   :exclude-members: __init__\n```",
    ]
    if card.citation:
        parts += ["## Citation", f"```bibtex\n{card.citation}\n```"]
    return "\n\n".join(parts) + "\n"


def index(names: list[str]) -> str:
    """The list of all models."""
    rows = [f"| [`{name}`]({name}.md) | {get_model(name).card.summary} |" for name in names]
    table = "\n".join(["| model | |", "|---|---|", *rows])
    tree = "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])
    parts = ["# Models", "Each model is one file; its page is made from that file.", table, *figure("maps"), tree]
    return "\n\n".join(parts) + "\n"


def write(app) -> None:
    """Write the pages into the documentation's sources."""
    folder = Path(app.srcdir) / "models"
    folder.mkdir(exist_ok=True)
    names = list_models()
    pages = {"index": index(names)} | {name: page(name) for name in names}
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text)


def setup(app) -> dict:
    app.connect("builder-inited", write, priority=100)  # before autosummary looks for its sources
    return {"parallel_read_safe": True}
