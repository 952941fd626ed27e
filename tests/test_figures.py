"""The figures that README and the pages quote in tables are those of one file, which the benchmark writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import sq_imputer as sqi

ROOT = Path(__file__).parent.parent
FIGURES = json.loads((ROOT / "benchmarks" / "figures.json").read_text())
README = [
    ("her2st", "top-50"),
    ("her2st", "top-250"),
    ("mob", "top-50"),
    ("mob", "top-250"),
    ("mouse_brain", "top-100"),
]
NAMES = {"ridge, crop alone": "ridge no context", 'ridge, kernel="rbf"': "ridge rbf"}
NAMES |= {f"{name}, told of gene sets": name for name in ("bilinear", "dkan", "comtip")}


def rows(text: str) -> dict[str, list[str]]:
    """Cells of the rows of tables that quote figures, by model."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip().replace("`", "").replace("*", "") for cell in line.strip("|").split("|")]
        if line.startswith("|") and re.match(r"\.\d{3}", cells[1]):
            found[NAMES.get(cells[0], cells[0])] = cells[1:]
    return found


def quoted(figure: dict | None) -> str:
    if figure is None:  # not run
        return "–"
    given = figure["pearson_given_depth"]
    return f"{figure['pearson']:.3f} ({'–' if given is None else f'{given:.3f}'})".replace("0.", ".")


def both(of: str, model: str) -> str:
    return " / ".join(f"{FIGURES[of][top][model]['pearson']:.3f}" for top in ("top-50", "top-250")).replace("0.", ".")


def test_the_table_of_readme_is_that_of_the_benchmark():
    found = rows((ROOT / "README.md").read_text())
    assert set(found) == set(FIGURES["her2st"]["top-50"])
    assert found == {model: [quoted(FIGURES[of][top].get(model)) for of, top in README] for model in found}


def test_the_page_on_splits_quotes_the_same():
    found = rows((ROOT / "docs" / "concepts" / "splits.md").read_text())
    assert {"ridge", "stem", "mclstexp"} < set(found)
    assert found == {model: [both("her2st", model), both("to B4", model)] for model in found}


def test_the_text_of_readme_quotes_the_transfer_as_the_file_has_it():
    text = " ".join((ROOT / "README.md").read_text().split())
    for model in ("triplex", "stem", "mclstexp"):
        assert f"`{model}` {both('to B4', model)}" in text
    given = " / ".join(f"{FIGURES['to B4'][top]['ridge']['pearson_given_depth']:.3f}" for top in FIGURES["to B4"])
    assert f"`ridge` has {both('to B4', 'ridge')} (given depth {given.replace('0.', '.')})" in text
    assert f"depth-only baseline ({both('to B4', 'depth only')})" in text


def test_the_page_on_resolution_quotes_the_transfer_as_the_file_has_it():
    cases = {"C3": "C3, downsampled", "A1": "A1 of another patient"}
    text = (ROOT / "docs" / "concepts" / "resolution.md").read_text()
    for case, title in cases.items():
        part = text[text.index(f"| {title}") :]
        lines = [line.split("|") for line in part[: part.index("\n\n")].splitlines()][:6]
        for read, column, n in (("as it is", 3, 6), ("auto", 4, 5)):
            found = [cells[column].strip() for cells in lines[:n]]
            order = ["ridge", "ridge rbf", "ridge no scaling", "mlp", "mclstexp", "classical"][:n]
            assert found == [quoted(FIGURES["transfer"][case][read]["top-50"][model]) for model in order]


def test_the_page_on_units_quotes_the_same():
    found = rows((ROOT / "docs" / "concepts" / "units.md").read_text())
    columns = [(of, top) for of in ("her2st, log2_counts", "her2st") for top in ("top-50", "top-250")]
    assert {"ridge", "stem"} < set(found)
    pearson = {model: [FIGURES[of][top][model]["pearson"] for of, top in columns] for model in found}
    assert found == {model: [f"{value:.3f}"[1:] for value in values] for model, values in pearson.items()}


def test_readme_quotes_what_a_first_try_gives():
    text = " ".join((ROOT / "README.md").read_text().split())
    alone, other = (FIGURES["first hours"]["ridge"][name] for name in ("C2", "C2 to C3"))
    shown = {name: [f"{row[k]:.3f}"[1:] for k in row] for name, row in (("alone", alone), ("other", other))}
    assert (
        "`ridge` {} (given depth {}) over its 250 genes, hardly more than depth alone ({})".format(*shown["alone"])
        in text
    )
    assert "on C3, the next cut: {} ({}), depth alone {} (".format(*shown["other"]) in text


def test_the_page_on_splits_quotes_what_partitions_are_worth():
    page = (ROOT / "docs" / "concepts" / "splits.md").read_text()
    columns = (
        "ari folds",
        "ari folds, random regions",
        "ari measured",
        "ari measured, random regions",
        "pearson",
        "mean z2",
        "mean z2, sized by other blocks",
    )
    for section, found in FIGURES["repeats"].items():
        for n, row in found.items():
            worth = " | ".join(f"{row[column]:.2f}" for column in columns)
            assert f"| {section}, {n} | {worth} | {row['sd, between folds']:.3f} |" in page


def calibrated(case: str, model: str, row: dict) -> str:
    found = [row.get(name) for name in ("in 50%", "in 80%", "in 95%", "in measured 95%")]
    inside = " | ".join("–" if value is None else f"{value:.1%}" for value in found)
    squares = f"{row['mean z2']:.2f} ({row['10 %']:.2f} to {row['90 %']:.2f})"
    return f"| {case} | {model} | {squares} | {inside} | {row['sharpness']:.2f} |"


def test_the_page_on_uncertainty_quotes_the_calibration_of_the_benchmark():
    page = (ROOT / "docs" / "concepts" / "uncertainty.md").read_text().splitlines()
    found = FIGURES["calibration"].items()
    rows = [calibrated(case, model, row) for case, models in found for model, row in models.items()]
    assert rows and [line for line in page if line.startswith("| ")][1:] == rows


CORRECTED = ("prediction", "interpolation", "corrected", "features")
SETS = {"her2st": ("C2 to C5", 250), "other patients": ("other patients", 250), "mouse_brain": ("mouse brain", 100)}
LAYOUTS = {name: f"{name[:-1]} % at random" for name in ("10%", "25%", "50%")}
LAYOUTS |= {"all others": "all others", "half": "the left half"}


def test_the_page_on_trust_quotes_what_correction_is_worth():
    page = (ROOT / "docs" / "concepts" / "trust.md").read_text().splitlines()
    quotes = [line for line in page if line.count("|") == 7 and "genes" not in line and "---" not in line]
    expected = []
    for of, (name, most) in SETS.items():
        found = FIGURES["correct"][of]
        for layout, where in LAYOUTS.items():
            for top, genes in ((50, "50"), (most, "all")):
                cells = (quoted(found[f"{layout}/{top}/{said}"]) for said in CORRECTED)
                expected.append(f"| {name}, {where} | {genes} | {' | '.join(cells)} |")
    assert quotes == expected


def test_the_page_on_trust_quotes_where_the_line_is_drawn():
    page, found = (ROOT / "docs" / "concepts" / "trust.md").read_text(), FIGURES["trust, line"]
    own, other = (sorted(v for of in found if of.endswith("itself") == us for v in found[of].values()) for us in (1, 0))
    assert len(own) == len(other) == 24
    assert f"23 have {own[-2]:.1%}".replace("%", " %") in page
    assert f"one {own[-1]:.1%}; the section of the other patient has {other[0]:.1%}".replace("%", " %") in page


def test_no_other_page_has_a_table_of_figures():
    names = {path.name for path in (ROOT / "docs").rglob("*.md") if "generated" not in path.parts}
    held = {name for name in names for path in (ROOT / "docs").rglob(name) if rows(path.read_text())}
    pages = (
        "splits",
        "units",
        "predictability",
        "encoders",
        "targets",
        "benchmarks",
        "microns",
        "genes",
        "knowledge",
        "auxiliary",
        "around",
    )
    assert held == {f"{name}.md" for name in pages}


def test_the_page_on_knowledge_quotes_what_it_is_worth_for_genes_that_nobody_measured():
    page = (ROOT / "docs" / "concepts" / "knowledge.md").read_text().splitlines()
    found = [line for line in page if re.match(r"\| [^|]* \| \.\d{3} \| ", line)]
    assert found == [zero_shot(name, FIGURES["zero_shot"][name]) for name in ZERO_SHOT]


ZERO_SHOT = {
    "comtip, GO + names": "`comtip`, gene sets and names",
    "bilinear, GO + names": "`bilinear`, gene sets and names",
    "bilinear, GO": "`bilinear`, gene sets alone",
    "bilinear, names": "`bilinear`, names alone",
    "bilinear, loadings of A1": "`bilinear`, loadings of another patient's section",
    "comtip, GO + names, nearest genes": "ten genes most alike by gene sets and names",
    "bilinear, loadings of A1, nearest genes": "ten genes most alike by these loadings",
    "mean of seen genes": "mean of all seen genes",
    "ridge, measured": "ridge on the gene itself",
}


def zero_shot(name: str, row: dict) -> str:
    parts = [row.get(f"less {control}") for control in ("permuted", "mean", "measured")]
    cells = ["–" if part is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*part).replace("0.", ".") for part in parts]
    return f"| {ZERO_SHOT[name]} | {place(row['pearson_given_depth'])} | {' | '.join(cells)} |"


def test_the_page_on_crops_quotes_how_far_they_are_from_windows_on_the_slide():
    text = (ROOT / "docs" / "concepts" / "microns.md").read_text()
    shown = [line.split("|")[2:6] for line in text[text.index("| changed |") :].splitlines()[2:7]]
    columns = ("median r", "share below .995", "genes, median r", "genes, least r")
    for cells, row in zip(shown, FIGURES["one definition"].values(), strict=True):
        known = [f"{row[name]:.0%}" if name.startswith("share") else place(row[name]) for name in columns]
        assert [cell.strip() for cell in cells] == known


def test_the_page_on_encoders_quotes_how_far_tokens_agree():
    found = rows((ROOT / "docs" / "encoders.md").read_text())
    shown = {
        name: [f"{value:.3f}".removeprefix("0") if value <= 1 else f"{value:.1f}" for value in row.values()]
        for name, row in FIGURES["tokens"].items()
    }
    assert found == shown


def test_the_page_on_predictability_quotes_the_benchmark():
    found = rows((ROOT / "docs" / "concepts" / "predictability.md").read_text())
    columns = ("eps", "eps given depth", "ceiling", "ceiling given depth", "not displaced")
    assert found == {
        section: [f"{figure[column]:.3f}"[1:] for column in columns] for section, figure in FIGURES["image_eps"].items()
    }


def test_the_page_on_targets_quotes_the_benchmark():
    page = (ROOT / "docs" / "concepts" / "targets.md").read_text().splitlines()
    names = {"mean": "how frequent they are"}
    found = FIGURES["targets"]
    columns = ["balanced_accuracy", "auroc", "auprc", "log_loss", "calibration_error"]
    for case in ("labels", "clusters"):
        for name, row in found[case].items():
            assert f"| {names.get(name, name)} | {' | '.join(place(row[column]) for column in columns)} |" in page
    for name, row in found.get("signatures", {}).items():
        both = (f"{place(way['pearson'])} ({place(way['pearson_given_depth'])})" for way in row.values())
        assert f"| {name} | {' | '.join(both)} |" in page
    for case in [case for case in ("proportions", "forms") if case in found]:
        for name, row in found[case].items():
            known = [row.get(column) for column in SHARES[case]]
            assert f"| {names.get(name, name)} | {' | '.join(map(place, known))} |" in page


SHARES = {
    "proportions": ("jensen_shannon", "pearson", "pearson_given_depth"),
    "forms": ("jensen_shannon", "pearson", "rmse", "bias of means"),
}


def place(value: float | None) -> str:
    """Three places, as pages quote them."""
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


def spanned(mean: float, low: float | None, high: float | None, sign: str = "") -> str:
    """A mean with its interval, where there is one."""
    shown = [f"{value:.3f}".replace("0.", ".", 1) for value in (mean, low, high) if value is not None]
    return sign * (mean > 0) + shown[0] + (f" [{shown[1]}, {shown[2]}]" if shown[1:] else "")


def test_the_page_on_benchmarks_quotes_the_protocol_as_the_file_has_it():
    text = (ROOT / "docs" / "concepts" / "benchmarks.md").read_text()
    recall, probe = "image to expression, {}, recall@5", "ridge-pca128, pearson_given_depth"
    for name, held in FIGURES["hescape"].items():
        for subject in [key.split(",")[0] for key in held if key.endswith(", " + recall.format("batch:64"))]:
            encoder, contrast = subject.split(" | ")
            cells = []
            for gallery in ("batch:64", "section"):
                mean, chance, *interval, _, _ = held[f"{subject}, {recall.format(gallery)}"]
                cells.append(f"{spanned(mean, *interval)} / {place(chance)}")
            cells += [place(held[f"{who}, {probe}"][0]) for who in (f"{encoder} | untuned", subject)]
            mean, low, high, n, better = held[f"{subject}, less untuned"]
            cells.append(f"{spanned(mean, low, high, '+')}, {better:.0f} of {n:.0f}")
            cells.append(place(held[f"coordinates only, {probe}"][0]))
            assert f"| {name}, {contrast} | {' | '.join(cells)} |" in text


AROUND = {
    "ridge": "`ridge`",
    "triplex": "`triplex`",
    "triplex no neighbors": "`triplex` without the tiles around",
    "triplex no slide": "`triplex` without the section",
    "bg_triplex": "`bg_triplex`",
    "dkan": "`dkan`, told of gene sets",
    "dkan permuted": "`dkan`, told the gene sets of other genes of the panel (permuted)",
    "dkan lexical": "`dkan`, told how genes are spelled (lexical)",
    "dkan learned": "`dkan`, told nothing (vectors that are learned)",
    "dkan vector": "`dkan`, told of gene sets, the spot as one key (the published form)",
}


def test_the_page_on_what_lies_around_quotes_what_it_is_worth_and_costs():
    page = (ROOT / "docs" / "concepts" / "around.md").read_text()
    tops = FIGURES["her2st, C2 alone"].values()
    shown = [line for line in page.splitlines() if re.match(r"\| [^|]* \| \.\d{3} ", line)]
    known = [name for name in AROUND if all(name in top for top in tops)]
    assert shown == [f"| {AROUND[name]} | {' | '.join(quoted(top[name]) for top in tops)} |" for name in known]
    brain = {name: quoted(row) for name, row in FIGURES["mouse_brain"]["top-100"].items()}
    assert f"`triplex` is the best of all models here: {brain['triplex']}" in page
    without = brain["triplex no neighbors"], brain["triplex no slide"]
    assert "Without the tiles around it has {}, without the section {}".format(*without) in page
    costs = dict(FIGURES["around"])
    whole, fits = costs.pop("tl.predict"), costs.pop("tl.fit")
    for n, models in costs.items():
        for name, row in models.items():
            times = (row["step, ms"] / 1000, row["section, s"], row["row, ms"])
            each = " | ".join(f"{value:.2f}" for value in times)
            assert f"| {int(n):,} | `{name}` | {each} | {row['peak, MiB']:,} |" in page
    said = ", ".join(f"`{name}` {row['seconds']:.1f} s" for name, row in whole.items())
    spots = whole["triplex"]["spots"]
    each = [f"`{name}` {fits[name]['seen']}, {fits[name]['fit']} and {fits[name]['error']}" for name in whole]
    assert f"her2st ({fits['dkan']['rows']} spots" in page and ", ".join(each) in " ".join(page.split())
    assert f"`tl.predict` of {spots:,} spots, result and table included, takes {said}" in " ".join(page.split())


def test_the_page_on_choosing_quotes_what_models_cost():
    page = (ROOT / "docs" / "howto" / "choose.md").read_text()
    brain = FIGURES["costs of the brain"]
    load, predict, score, fit, fine = (brain[what] for what in ("load", "predict", "score", "fit", "fine"))
    said = (
        f"({brain['spots']:,} spots, the {brain['genes']} genes that it has), by itself and with `ridge`, is read in "
        f"{load} s, predicted out of fold in {predict} s and scored beside baselines in {score} s; a model of one gene "
        f"is fitted in {fit} s and predicts {brain['circles']:,} circles, 47 µm apart, in {fine} s"
    )
    assert said in " ".join(page.split())
    found = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines() if line.count("|") == 7]
    shown = {(row[0].split()[0].strip(","), row[1].strip("`")): row[2:] for row in found[2:]}
    steps = ("load", "fit", "predict", "score")
    known = {
        (at, model): [f"{row[s]:.0f}" for s in steps]
        for at, of in FIGURES["costs"].items()
        for model, row in of.items()
    }
    assert shown == known


def test_the_page_on_cells_quotes_its_benchmarks():
    page = " ".join((ROOT / "docs" / "concepts" / "cells.md").read_text().split())
    found = FIGURES["cells beside LazySlide"].values()
    texture, colors, gray = (f"{rate:,.0f}" for rate in found)
    assert (
        f"`texture` does {texture} rows per CPU-second, LazySlide's mean colors (`split_rgb`, 3 numbers) {colors}"
        in page
    )
    assert f"(`haralick_texture`, 5 numbers) {gray}." in page
    for name, row in FIGURES["scale"].items():
        if name.startswith("together, "):
            assert re.search(rf"\| {row['rows']:,} \| {row['seconds']:.1f} \| [\d,]+ \| {row['peak_mib']:,} \|", page)
    for verb in ("kmeans", "score", "agreement", "compare"):
        row = FIGURES["verbs at scale"][f"{verb}, 1,000,000"]
        assert f"| {row['cpu']:.0f} | {row['wall']:.0f} | {row['peak_mb']:,.0f} |" in page
    for view in ("150 µm", "400 µm", "800 µm", "all three"):
        row = FIGURES["spots together"]["all" if view == "all three" else view.split()[0]]
        together, alone = row["together"], row["crop by crop"]
        assert f"| {view} | {together:,.0f} | {alone:,.0f} | {together / alone:.1f} |" in page


def test_the_page_on_genes_quotes_what_windows_cost():
    page = (ROOT / "docs" / "concepts" / "genes.md").read_text()
    found = FIGURES["windows"]
    size = (
        f"{found['bases']:,} bases, {found['rows']:,} windows of {found['length']:,} bp in batches of {found['batch']}"
    )
    assert size in " ".join(page.split())
    for name, row in found["cases"].items():
        more = row["MB"] - row["MB before"]
        assert f"| {name} | {row['first batch, s']:.1f} | {row['each, ms']:.1f} | {more:.0f} |" in page
    alone = found["cases"]["DNA"]
    assert f"beyond {alone['MB before']:.0f} |" in page and f"took {alone['index, s']:.1f} s, once" in page


def test_the_page_on_genes_quotes_what_is_said_by_texts():
    page = (ROOT / "docs" / "concepts" / "genes.md").read_text()
    found = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in page.splitlines() if " to ." in line]
    columns = ("pearson", "low", "high", "spearman across genes")
    rows = [[place(row[name]).replace("-0.", "-.") for name in columns] for row in FIGURES["gta"].values()]
    assert sorted(found) == sorted([r, f"{low} to {high}", rank] for r, low, high, rank in rows)
    card = sqi.get_model("gta").card.limits
    assert all(f"{FIGURES['gta'][name]['pearson']:.3f}"[1:] in card for name in ("words", "gta"))


def test_the_page_on_genes_quotes_what_is_read_from_dna():
    page = (ROOT / "docs" / "concepts" / "genes.md").read_text()
    found = FIGURES["sequence"]

    def short(value: float) -> str:
        return f"{value:.3f}".removeprefix("0")

    for name, row in found["motif"].items():
        others = [row[f"AUROC against {kind}"] for kind in ("background", "motif", "peak")]
        cells = [row["pearson"], row["signal only"], *others, row["mean mask"]]
        assert f"| {name} | {' | '.join(map(short, cells))} |" in page
    for name, row in found["mpra"].items():
        if isinstance(row, dict):
            assert f"| {name} | {short(row['pearson'])} | {short(row['random promoters'])} |" in page
    for name, row in found["atac"].items():
        if "tested" in (row if isinstance(row, dict) else {}):
            cells = (short(row[way]) if way in row else "–" for way in ("tested", "chosen on"))
            assert f"| {name} | {' | '.join(cells)} |" in page
    for name, row in found["atac"]["motifs"].items():
        other = f"{row['over shuffled']:.2f}" if "over shuffled" in row else "–"
        cells = f"{row['sites']:,} | {short(row['kept'])} | {row['over rolled']:.2f} | {short(row['p'])} | {other}"
        assert f"| {name} | {cells} |" in page
    for name, row in FIGURES["masks"].items():
        mean = f": mean mask .{row['mean mask'] * 100:.0f}" if "mean mask" in row else ""
        assert f"| {name}{mean} | {short(row['pearson'])} |" in page
    for name, row in found["speed"].items():
        times = f" {row['times the loop']:.1f}" if "times the loop" in row else ""
        assert f"| {name} | {row['seconds']:.3g} | {row['bases per second']:,.0f} |{times} |" in page


def test_the_page_of_the_window_quotes_how_quick_it_is():
    page, found = (ROOT / "docs" / "howto" / "window.md").read_text(), FIGURES["window"]
    live, domains = found["live"], found["domains"]
    cells = [*(live[name] for name in ("first", "another", "first again", "longest pause")), domains["components"]]
    quotes = re.findall(r"^\|.*\| (\d+\.\d\d) \|$", page, re.MULTILINE)
    assert quotes == [f"{value:.2f}" for value in cells]
    assert live["first, points"] == live["another, points"] == [2200, 2200] and live["first again, points"] == [2200, 0]
    each = ", ".join(f"{domains[f'{k} domains']:.2f}" for k in (4, 8, 16))
    assert f"| {each} |" in page
    points = found["points"]
    for names in ("colored, longest", "colored side by side", "shown", "shown for others", "laid out side by side"):
        assert f"| {', '.join(f'{points[name]:.3f}' for name in names.split(', '))} |" in page
    assert f"{points['MB after 5']:,} MB, after 200 genes {points['MB after 200']:,}." in page


def test_the_page_on_trust_quotes_intervals_unlike_sections_and_chance():
    page = (ROOT / "docs" / "concepts" / "trust.md").read_text()
    for name, row in FIGURES["trust, intervals"].items():
        held = f"{row['held']:.1%} | {row['10 %']:.1%} to {row['90 %']:.1%}".replace("%", " %")
        assert f"| {name} | {held} | {row['width']:.2f} |" in page
    for name, row in FIGURES["trust, unlike"].items():
        beyond, flagged = f"{row['beyond']:.1%}".replace("%", " %"), "yes" if row["flagged"] else "no"
        assert f"| {name.replace('_', ' ')} | {beyond} | {flagged} |" in page
    of = {
        name: (row["genes"], f"{row['reliable']:.1%}".replace("%", " %"))
        for name, row in FIGURES["trust, chance"].items()
    }
    (n, share), (all_n, found) = of["independent of the image"], of["of the image"]
    assert (
        f"Of {n} toy genes that do not depend on the image {share} are called" in page
        and f"of {all_n} that do {found}" in page
    )


def test_the_page_on_trust_quotes_what_was_found_of_planted_shifts():
    page = (ROOT / "docs" / "concepts" / "trust.md").read_text()
    named = {
        "her2st": "breast",
        "mob": "bulb",
        "mouse_brain": "mouse brain",
        "cells": "toy cells",
        "many": "many toy cells",
    }
    for name, cases in FIGURES["alignment"].items():
        for case, row in cases.items():
            said = f"{row['verdict']} | {row['turn']} | {row['error_um']:.1f} |"
            if name == "published":
                assert (
                    f"| {case} | {row['verdict']} | {row['x_um']:.0f}, {row['y_um']:.0f} | {row['within_um']:.0f} |"
                    in page
                )
            else:
                assert f"| {named[name]}, {case} | {said}" in page


def test_the_page_on_auxiliary_genes_quotes_its_benchmark():
    page = (ROOT / "docs" / "concepts" / "auxiliary.md").read_text()
    named = {"her2st": "breast", "mob": "olfactory bulb", "mouse_brain": "brain"}
    for name, held in FIGURES["auxiliary genes"].items():
        for spots in (80, 200, 0):
            of = {way: held[f"{spots}/{way}"] for way in ("none", "all", "learned", "ridge")}
            cells = [f"{place(row['pearson'])} ({place(row['given depth'])})" for row in of.values()]
            cells += [spanned(*(of[way][k] for k in ("gain", "low", "high")), "+") for way in ("all", "learned")]
            assert f"| {named[name]}, {spots or 'all'} | {' | '.join(cells)} |" in page
    cost = FIGURES["auxiliary genes, cost"]
    said = "All {auxiliary:,} other genes of C3 to C5 ({rows} spots) as auxiliary ones take {seconds} ".format(**cost)
    assert said in page and f"{cost['peak_mib']:,} MiB at most" in page


def test_the_page_on_what_lies_around_quotes_what_color_does_not_tell():
    page = (ROOT / "docs" / "concepts" / "around.md").read_text()
    shown = [line for line in page.splitlines() if line.startswith(("| colors |", "| texture |"))]
    known = []
    for features, models in FIGURES["beyond color"].items():
        for name, row in models.items():
            said = [f"{mean:.3f} ({low:.3f} to {high:.3f})".replace("0.", ".") for mean, low, high in row.values()]
            model = f"`{name.split(',')[0]}`{', edges alone' * ('edges' in name)}"
            known.append(f"| {features} | {model} | {' | '.join(said)} |")
    assert shown == known and len(known) == 8
