"""Maps of three genes on a held-out section of real tissue: measured, and what ridge, Stem and mclSTExp make of them.

    python benchmarks/maps.py [--data FOLDER] [--test C2] [--genes IGKC FN1 GNAS] [--stem FOLDER] [--out FOLDER]

Fitted on the other sections of her2st C2 to C5 (replicates of one tumor, not new patients), 250 genes chosen on them,
log1p CP10k, every model with its defaults. Genes are markers of plasma cells, stroma and tumor epithelium, not chosen
by score. Stem wants a GPU to be fitted: `--stem` names the folder of a fitted model (of `benchmarks/stem.py --model`,
say); if there is none yet, it is fitted and saved there.

Writes maps.png, and for the pages of the documentation stem.png and mclstexp.png; the latter also shows which training
spots the highest prediction of the first gene is made of. Data: Andersson et al. 2021, CC BY 4.0.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import frozen
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from scipy.spatial import cKDTree

import sq_imputer as sqi
from sq_imputer.genes.panel import choose_genes
from sq_imputer.pl import _panels as draw
from sq_imputer.scores import metrics
from sq_imputer.section.slide import Slide

N_GENES, DPI, FONT = 250, 110, 11
OUT = Path(__file__).resolve().parent.parent / "docs" / "_static" / "models"
STD = "Stem std"
COLORS = {draw.VALUES: 64, draw.SPREAD: 40, "gray": 12}  # of the 256 of a picture; the others are left to the tissue
BACKGROUND_PX = 90

Background = tuple[np.ndarray, tuple[float, float, float, float]]


@dataclass(frozen=True)
class Maps:
    """What was measured and predicted on the rows of a section, `(n, G)` each, for the genes that are drawn."""

    slide: Slide
    background: Background
    genes: list[str]
    values: dict[str, np.ndarray]

    def limits(self, name: str, gene: int) -> tuple[float, float]:
        """5th and 95th percentile: of the standard deviation, or of everything else together."""
        shown = [name] if name == STD else [other for other in self.values if other != STD]
        low, high = np.percentile(np.concatenate([self.values[key][:, gene] for key in shown]), [5, 95])
        return float(low), float(high)

    def score(self, name: str, gene: int) -> str:
        if name in ("H&E", "measured", STD):
            return ""
        y, p = (self.values[key][:, [gene]] for key in ("measured", name))
        given = metrics.pearson_given(y, p, self.slide.depth)[0]
        return f"r {metrics.pearson(y, p)[0]:.2f}, given depth {given:.2f}"


@dataclass(frozen=True)
class Neighbors:
    """The bank rows that one spot was predicted from: their place, level of the first gene, and weight."""

    spot: int
    section: np.ndarray
    xy_um: np.ndarray
    level: np.ndarray
    weight: np.ndarray


def gene_map(ax, maps: Maps, name: str, gene: int, *, bar: bool) -> None:
    """One gene as measured or predicted: spots of true size over the pale H&E."""
    radius, colors = maps.slide.size_um / 2, draw.SPREAD if name == STD else draw.VALUES
    draw.panel(ax, maps.slide.xy_um, radius, pale(maps.background))
    spots = draw.spots(ax, maps.slide.xy_um, radius, maps.values[name][:, gene], colors, maps.limits(name, gene))
    spots.set(edgecolor="0.2", linewidth=0.4)  # the lightest color would be lost on the slide
    if bar:
        label, beside = "standard deviation" if name == STD else "log1p CP10k", ax.inset_axes((1.03, 0, 0.05, 1))
        ax.figure.colorbar(spots, cax=beside, label=label, extend="both", extendfrac=0.03)


def rows_of_maps(axes, maps: Maps, columns: list[str]) -> None:
    """A row per gene; beside the last column the color bar of all but the standard deviation, which has its own."""
    for gene, row in enumerate(axes):
        for ax, name in zip(row, columns, strict=True):
            if name == "H&E":
                ax.imshow(maps.background[0], extent=maps.background[1])
                draw.panel(ax, maps.slide.xy_um, maps.slide.size_um / 2, None)
            else:
                gene_map(ax, maps, name, gene, bar=name in (STD, columns[-1]))
            said = maps.score(name, gene)
            ax.set_title(f"{name}\n{said or ' '}" if gene == 0 else said)
        row[0].set_ylabel(maps.genes[gene], fontstyle="italic", fontsize=FONT + 4)
    draw.scale_bar(axes[-1][0])


def rows_of_neighbors(axes, maps: Maps, found: Neighbors, training: list[Slide], backgrounds: list[Background]) -> None:
    """Where the neighbors lie on the training sections: areas are weights, colors the first gene as measured there."""
    for ax, slide, background in zip(axes, training, backgrounds, strict=True):
        radius = slide.size_um / 2
        draw.panel(ax, slide.xy_um, radius, pale(background))
        draw.spots(ax, slide.xy_um, radius, np.full(len(slide), np.nan), draw.VALUES, (0, 1))
        here = found.section == slide.section
        radii = 1.8 * np.median(radius) * np.sqrt(found.weight[here] / found.weight.max())
        limits = maps.limits("measured", 0)
        circles = draw.spots(ax, found.xy_um[here], radii, found.level[here], draw.VALUES, limits)
        circles.set(edgecolor="black", linewidth=0.7)
        ax.set_title(f"{slide.section}: {here.sum()} of {len(here)}, weight {found.weight[here].sum():.2f}")
    low, high = found.weight.min(), found.weight.max()
    said = f"neighbors of the ringed spot\narea: weight, {low:.3f} to {high:.3f}\n"
    axes[0].set_title(said + axes[0].get_title())


def page_of_mclstexp(maps: Maps, found: Neighbors, training: list[Slide], backgrounds: list[Background]):
    """Measured and predicted, and what one prediction was made of."""
    figure, axes = figure_of(max(len(maps.genes), len(training)), 3, maps.slide)
    for ax in (*axes[len(maps.genes) :, :2].flat, *axes[len(training) :, 2]):
        ax.set_axis_off()
    rows_of_maps(axes[: len(maps.genes), :2], maps, ["measured", "mclSTExp"])
    for ax in axes[0, :2]:
        place, radius = maps.slide.xy_um[found.spot], maps.slide.size_um[found.spot]
        ax.add_patch(plt.Circle(place, radius, fill=False, color="black", linewidth=1.8))
    rows_of_neighbors(axes[: len(training), 2], maps, found, training, backgrounds)
    return figure


def figure_of(n_rows: int, n_columns: int, slide: Slide):
    plt.rcParams.update({"font.size": FONT, "axes.titlesize": FONT})
    width, height = np.ptp(slide.xy_um, axis=0)
    size = (2.15 * n_columns + 1.7, (2.1 * height / width + 0.4) * n_rows + 0.4)
    return plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")


def pale(background: Background) -> Background:
    """Fewer pixels: what lies under the spots is to be recognized, not studied, and takes most of the bytes."""
    picture = Image.fromarray(background[0]).resize((BACKGROUND_PX, BACKGROUND_PX), Image.Resampling.BOX)
    return np.asarray(picture.resize((4 * BACKGROUND_PX,) * 2, Image.Resampling.BICUBIC)), background[1]


def write(figure, path: Path) -> None:
    """Save in 256 colors, those of the color bars among them: a fraction of the bytes, and values keep their color."""
    held = io.BytesIO()
    figure.savefig(held, dpi=DPI, facecolor="white")
    plt.close(figure)
    pixels = np.asarray(Image.open(held).convert("RGB"))
    scales = [plt.get_cmap(name)(np.linspace(0, 1, n), bytes=True)[:, :3] for name, n in COLORS.items()]
    free = (256 - sum(COLORS.values())) // 2  # for the colors of most pixels, and as many for the range of all colors
    of = (pixels, np.unique(pixels.reshape(-1, 3) // 4 * 4 + 2, axis=0)[None])
    tissue = [Image.fromarray(colors).quantize(free).getpalette()[: 3 * free] for colors in of]
    palette = np.concatenate([*scales, np.reshape(np.concatenate(tissue), (-1, 3))]).astype(np.uint8)
    small = Image.fromarray(cKDTree(palette).query(pixels)[1].astype(np.uint8))
    small.putpalette(palette.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    small.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def stem_of(folder: Path | None, training: list[Slide], plan: sqi.Plan):
    """The fitted model of a folder, or one fitted here."""
    if folder is None or not folder.is_dir():
        model = sqi.get_model("stem")().fit(training, plan)
        if folder is not None:
            model.save(folder)
        return model
    model, sections = sqi.load(folder), {slide.section for slide in training}
    if set(model.provenance["sections"]) != sections or model.genes != training[0].genes:
        raise SystemExit(f"{folder} was not fitted on {sorted(sections)} with their panel; fit it again.")
    return model


def predictions(test: Slide, training: list[Slide], genes: list[str], args) -> tuple[Maps, Neighbors]:
    """Every model on the test section, and the neighbors behind the highest prediction of the first gene."""
    plan, columns = sqi.Plan(device=args.device), [test.genes.index(gene) for gene in genes]
    stem = stem_of(args.stem, training, plan)
    drawn = stem.sampling(keep_samples=1).predict(test, batch_size=16, device=args.device)
    model = sqi.get_model("mclstexp")().fit(training, plan)
    said = model.predict(test, device=args.device)
    ridge = sqi.get_model("ridge")().fit(training, plan).predict(test, device=args.device)
    found = {"measured": torch.from_numpy(test.expression), "ridge": ridge.mean, "Stem mean": drawn.mean}
    found |= {STD: drawn.std, "one Stem sample": drawn.samples[:, 0], "mclSTExp": said.mean}
    values = {name: tensor[:, columns].numpy() for name, tensor in found.items()}
    spot, bank = int(values["mclSTExp"][:, 0].argmax()), model.bank()
    kept = said.neighbors[spot] >= 0
    rows, weight = said.neighbors[spot][kept].numpy(), said.weights[spot][kept].numpy()
    level = model.memory.values[:, columns[0]].cpu().numpy()[rows]
    xy = np.column_stack([bank["x_um"], bank["y_um"]])[rows]
    shown = Maps(test, draw.background(test, {}), genes, values)
    return shown, Neighbors(spot, bank["section"][rows], xy, level, weight)


def left_out(data: Path | None, name: str, genes: list[str]) -> tuple[Slide, list[Slide]]:
    """A section of her2st, its rows with counts, and the others, on which the panel is chosen."""
    slides = frozen.read("her2st", data)
    panel = choose_genes([slide for slide in slides if slide.section != name], N_GENES)
    absent = sorted(set(genes) - set(panel))
    if absent:
        raise SystemExit(f"not among the {N_GENES} genes of the panel: {absent}; it has {panel}")
    slides = [slide.with_genes(panel) for slide in slides]
    test = next(slide for slide in slides if slide.section == name)
    rows = np.flatnonzero(np.nan_to_num(test.depth) > 0)
    return test.take(rows), [slide for slide in slides if slide.section != name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--test", default="C2")
    parser.add_argument("--genes", nargs="+", default=["IGKC", "FN1", "GNAS"])
    parser.add_argument("--stem", type=Path, default=None, help="folder of a fitted Stem")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    test, training = left_out(args.data, args.test, args.genes)
    maps, found = predictions(test, training, args.genes, args)
    draw_all(maps, found, training, args.out)


def draw_all(maps: Maps, found: Neighbors, training: list[Slide], out: Path) -> None:
    for name, shown in (("maps", ["H&E", *maps.values]), ("stem", ["measured", "Stem mean", STD, "one Stem sample"])):
        figure, axes = figure_of(len(maps.genes), len(shown), maps.slide)
        rows_of_maps(axes, maps, shown)
        write(figure, out / f"{name}.png")
    backgrounds = [draw.background(slide, {}) for slide in training]
    write(page_of_mclstexp(maps, found, training, backgrounds), out / "mclstexp.png")


if __name__ == "__main__":
    main()
