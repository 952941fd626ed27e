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


def page(name: str) -> str:
    """The page of a model, in MyST markdown."""
    model = get_model(name)
    card, module = model.card, model.__module__
    paper = f"{card.paper} [doi:{card.doi}](https://doi.org/{card.doi})" if card.doi.startswith("10.") else card.paper
    texts = {title: getattr(card, key) for key, title in CARD.items()} | {"Paper": paper}
    rows = [f"{title}\n: {text}\n" for title, text in texts.items() if text]
    defaults, small = model.Config(), model.Config.small()
    values = [
        f"| `{f.name}` | `{getattr(defaults, f.name)!r}` | `{getattr(small, f.name)!r}` |" for f in fields(defaults)
    ]
    parts = [
        f"# `{name}`",
        card.summary,
        f"```python\nsqi.tl.predict(sdata, model={name!r})\n```",
        "## Card",
        *rows,
        "## Method",
        f"```{{eval-rst}}\n{sys.modules[module].__doc__}\n```",
        "## Configuration",
        "\n".join(["| field | default | `Config.small()` |", "|---|---|---|", *values]),
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
    return f"# Models\n\nEach model is one file; its page is made from that file.\n\n{table}\n\n{tree}\n"


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
