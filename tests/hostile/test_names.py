"""Names of genes, sections and models that are commands to a terminal, to rich, or to matplotlib."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import sq_imputer as sqi
from sq_imputer import cli, progress
from sq_imputer.errors import BadInput, MissingKey, StoreError, listed, printable
from sq_imputer.models import ridge
from sq_imputer.pl._text import plain

matplotlib.use("agg")
import matplotlib.pyplot as plt

TITLE = "\x1b]0;owned\x07"  # sets the title of the terminal
CLEAR = "\x1b[2J\x1b[31m"
LINE = "x\nerror: all is lost\r"
HIDDEN = "a\u202egnp.exe\u200b"  # reads as "aexe.png"
SURROGATE = "a\udc9b"  # what an undecodable byte of a file name becomes
MARKUP = "[red]x[/] [link=file:///etc/passwd]y[/link] [/nothing]"
FORMULA = r"$\frac{$ $\input{/etc/passwd}$"
NAMES = {"title": TITLE, "clear": CLEAR, "line": LINE, "hidden": HIDDEN, "surrogate": SURROGATE, "nul": "a\0b"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("kind", [BadInput, MissingKey, StoreError])
def test_a_message_is_one_line_of_what_can_be_seen(kind, name) -> None:
    said = str(kind(f"no gene '{name}'; there are {listed([name])}."))
    assert said.isprintable() and said.isascii()
    assert repr(name)[1:-1] in said


@pytest.mark.parametrize("text", ["GNAS", "HLA-DRA μm × é 基因", MARKUP, FORMULA, ""])
def test_what_can_be_seen_is_left_as_it_is(text) -> None:
    assert printable(text) == text and str(BadInput(text)) == text


def test_an_error_is_the_same_after_it_was_sent_to_another_process() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BadInput(f"no {TITLE}")))
    assert type(error) is BadInput and str(error) == r"no \x1b]0;owned\x07"


def test_a_table_on_the_command_line_shows_names_as_they_are(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    cli.print_table(pd.DataFrame({MARKUP: [MARKUP, TITLE], "value": [0.5, LINE]}), title=f"{MARKUP} {CLEAR}")
    said = capsys.readouterr().out
    assert said.count(MARKUP) == 3 and r"\x1b]0;owned\x07" in said and r"\x1b[2J" in said
    assert "\x1b" not in said and "\r" not in said and "0.500" in said


def test_an_error_on_the_command_line_is_one_line(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["sq-imputer", "score", f"{tmp_path}/{LINE}{TITLE}[red]x"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    said = capsys.readouterr().err
    assert said.endswith("\n") and said[:-1].isprintable() and "[red]x" in said


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that keeps what it was sent."""
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), force_terminal=True, width=200, color_system="truecolor")
    monkeypatch.setattr(progress, "_console", lambda: console)
    monkeypatch.setattr(progress, "PATIENCE_S", -1.0)
    return console.file


def test_a_progress_bar_shows_names_as_they_are(terminal) -> None:
    for _ in progress.track(range(3), f"ridge on {MARKUP}{TITLE}", 3):
        pass
    bar = progress.Bar("folds", 2)
    bar.advance(label=f"{MARKUP}{TITLE}")
    bar.stop()
    said = terminal.getvalue()
    assert said.count(MARKUP) >= 2 and r"\x1b]0;owned\x07" in said and TITLE not in said


def scores(name: str) -> pd.DataFrame:
    rows = {"gene": ["A", "B"], "predictor": name, "pearson": [0.1, 0.2], "rank": [0, 1]}
    return pd.DataFrame(rows | {"case": name, "shares_patient": False})


def said_in(figure) -> str:
    """All text in a picture, which must be one that can be drawn."""
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(Text))


PICTURES = {
    "skill": lambda name: sqi.pl.skill(scores(name), baselines=()),
    "zero_shot": lambda name: sqi.pl.zero_shot(scores(name).assign(similarity=0.5), metric="pearson"),
    "leaderboard": lambda name: sqi.pl.leaderboard({name: scores(name)}, baselines=()),
    "genes_correlation": lambda name: sqi.pl.genes_correlation(
        tuple(np.random.default_rng(0).normal(size=(2, 9, 4))), genes=[name, "B", "C", "D"]
    )[0],
}


@pytest.mark.parametrize("name", [FORMULA, "$", "$x$", TITLE, LINE, MARKUP], ids=["tex", "one", "math", *"abc"])
@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_shows_names_as_they_are(picture, name) -> None:
    figure = PICTURES[picture](name).figure
    assert plain(name) in said_in(figure)
    assert not {c for c in said_in(figure) if not c.isprintable()} - {"\n"}
    plt.close(figure)


def test_maps_of_a_gene_show_its_name_as_it_is(section) -> None:
    gene = section["table"].var_names[0]
    section["table"].var_names = [FORMULA if name == gene else name for name in section["table"].var_names]
    genes = [FORMULA, *section["table"].var_names[1:3]]
    sqi.tl.predict(section, "nsl", genes=genes, config={"size_px": 4, "epochs": 1}, plan=sqi.Plan(progress=False))
    figure = sqi.pl.compare(section, FORMULA).flat[0].figure
    assert plain(FORMULA) in said_in(figure)
    plt.close(figure)


def test_genes_with_control_characters_are_refused_before_a_fit(arrays, refused) -> None:
    rng = np.random.default_rng(0)
    source = arrays(rng.normal(size=(9, 2)), features=rng.normal(size=(9, 3)), genes=("A", CLEAR))
    model = ridge.Model(ridge.Config(context_um=(), per_section=False))
    refused(lambda: model.fit(source), r"1 genes have control characters in their names: '\x1b[2J", "Rename them")
    assert not model.fitted
