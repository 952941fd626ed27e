"""What is written about a gene and how much it is expressed: `gta` without DNA, its controls, and ridge on words.

    python benchmarks/gta.py [--data FOLDER] [--json benchmarks/figures.json]    # some 8 minutes of one core
    python benchmarks/gta.py --tune lr=2e-3 epochs=8 [--language FOLDER]         # scores chromosomes 3 and 21 alone

her2st A1: one number per gene, log(.01 + mean of CP10k over the spots); .01 is about what a count in two or three spots
makes. Genes of chromosomes 22 and X are tested, settings were chosen on 3 and 21, all others are trained on. Pearson
and Spearman over the tested genes (across genes, in one sample), and an interval of Pearson by 2000 draws of genes.

No human genome is at hand, so that no model reads DNA here: `gta.Config(length=0)`. Texts are those of
:func:`sq_imputer.genes.gene_prompts`, of NCBI's gene_info, GO BP 2021 and Hallmark. The language model is
trained on the texts of genes that are not tested. Rows:

`gene sets`: ridge on 128 components of genes x sets and the number of sets; `and names`: with 64 of the words of full
names. `words`: ridge on TF-IDF of the words, and pairs of words, of the same texts; their number and the penalty were
chosen on 3 and 21. `gta`: as it is; `lm random`, `lm none`: its controls. `texts of other genes`: gta, fitted on texts
dealt out to other genes. `asked by`: gta, fitted on true texts and asked with those of other genes, or with words in a
drawn order.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import sq_imputer as sqi
from sq_imputer import GeneKnowledge, GeneWindows
from sq_imputer.genes.annotations import read_chromosomes, read_gene_info, read_gmt
from sq_imputer.genes.prompts import gene_prompts
from sq_imputer.models import gta
from sq_imputer.nn.language import LanguageModel
from sq_imputer.scores.genomes import spearman_across_genes

TESTED, CHOSEN_ON = ("22", "X"), ("3", "21")
LEAST = 0.01
INFO, SETS = (
    "Homo_sapiens.gene_info.slim.tsv.gz",
    ("enrichr.GO_Biological_Process_2021.gmt", "h.all.v7.0.symbols.gmt"),
)


class Genes:
    """Genes of A1 whose chromosome is known, with what is written about them and how much they are expressed."""

    def __init__(self, data: Path) -> None:
        self.info, self.sets = data / "genes" / INFO, [data / "genes" / name for name in SETS]
        counts = pd.read_csv(data / "her2st" / "A1_counts.tsv.gz", sep="\t", index_col=0)
        values = counts.to_numpy(dtype=float)
        mean = (1e4 * values / values.sum(axis=1, keepdims=True)).mean(axis=0)
        chromosomes, self.aliases = read_chromosomes(self.info), read_gene_info(self.info).aliases
        where = [chromosomes.get(g, chromosomes.get(self.aliases.get(g, g), "")) for g in counts.columns]
        there = np.array([bool(one) for one in where])
        self.names = counts.columns[there].tolist()
        self.chromosome = np.array(where)[there]
        self.y = np.log(LEAST + mean[there])
        self.texts = gene_prompts(self.info, self.sets, genes=self.names)

    def on(self, chromosomes) -> np.ndarray:
        return np.isin(self.chromosome, chromosomes)

    @property
    def train(self) -> np.ndarray:
        return ~self.on(TESTED + CHOSEN_ON)

    def windows(self, rows: np.ndarray, texts: dict[str, str]) -> list[GeneWindows]:
        """Genes of some rows, a source per chromosome; without DNA."""
        rows = np.flatnonzero(rows)
        names = [self.names[row] for row in rows]
        where = self.chromosome[rows]
        return (
            GeneWindows.from_sequences(["N"] * len(rows), self.y[rows], names=names, group=where)
            .with_texts(texts)
            .by_chromosome()
        )

    def dealt_out(self, seed: int) -> dict[str, str]:
        """Texts of other genes."""
        order = np.random.default_rng(seed).permutation(len(self.names))
        return {name: self.texts[self.names[k]] for name, k in zip(self.names, order, strict=True)}

    def mixed(self, seed: int) -> dict[str, str]:
        """Texts whose words are in a drawn order."""
        rng = np.random.default_rng(seed)
        return {name: " ".join(rng.permutation(text.split())) for name, text in self.texts.items()}


def ridge(genes: Genes, x, penalties) -> np.ndarray:
    """Ridge on the training genes, its penalty chosen on chromosomes 3 and 21."""
    from sklearn.linear_model import Ridge

    held = genes.on(CHOSEN_ON)
    fits = [Ridge(alpha=a, solver="auto").fit(x[genes.train], genes.y[genes.train]) for a in penalties]
    return max((fit.predict(x) for fit in fits), key=lambda said: np.corrcoef(said[held], genes.y[held])[0, 1])


def by_sets(genes: Genes) -> tuple[np.ndarray, np.ndarray]:
    """What ridge says by gene sets, and by these and full names."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    sets = GeneKnowledge.from_gene_sets(genes.sets).with_aliases(genes.info)
    found = sets.aligned(genes.names, quiet=True)
    members = [gene for own in read_gmt(genes.sets).values() for gene in own]
    number = pd.Series(members).map(lambda gene: genes.aliases.get(gene, gene)).value_counts()
    count = np.log1p([number.get(genes.aliases.get(name, name), 0) for name in genes.names])
    names = [(genes.texts[name].split("; ") + [name])[1] for name in genes.names]
    words = TfidfVectorizer(min_df=2).fit(np.array(names)[genes.train]).transform(names)
    x = np.column_stack([found.vectors, count, found.known])
    both = np.column_stack([x, TruncatedSVD(64, random_state=0).fit(words[genes.train]).transform(words)])
    scaled = [(part - part[genes.train].mean(axis=0)) / (part[genes.train].std(axis=0) + 1e-9) for part in (x, both)]
    return tuple(ridge(genes, part, np.logspace(0, 4, 9)) for part in scaled)


def by_words(genes: Genes) -> np.ndarray:
    """What ridge says by words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [genes.texts[name] for name in genes.names]
    words = TfidfVectorizer(min_df=3, ngram_range=(1, 2), sublinear_tf=True)
    return ridge(genes, words.fit(np.array(texts)[genes.train]).transform(texts), (1.0, 3.0, 10.0))


def language_of(genes: Genes, config: gta.Config, folder: Path) -> str:
    """The folder of a language model of the texts of genes that code for proteins and are not tested."""
    if not (folder / "language.json").is_file():
        where = read_chromosomes(genes.info)
        every = gene_prompts(genes.info, genes.sets).items()
        texts = [text for gene, text in every if "protein coding" in text and where.get(gene) not in TESTED]
        shape = {"words": config.words, "width": config.lm_width, "depth": config.lm_depth, "heads": config.lm_heads}
        LanguageModel.train(texts, **shape, steps=config.lm_steps, progress=False).save(folder)
    return str(folder)


def fitted(genes: Genes, config: gta.Config, texts: dict[str, str]) -> gta.Model:
    plan = sqi.Plan(device="cpu", progress=False, calibration=0)
    return gta.Model(config).fit(genes.windows(genes.train, texts), plan)


def asked(genes: Genes, model: gta.Model, texts: dict[str, str], chromosomes) -> np.ndarray:
    """What a model says of the genes of some chromosomes; NaN of all others."""
    said = pd.Series(np.nan, index=genes.names)
    for source in genes.windows(genes.on(chromosomes), texts):
        said[source.names] = model.predict(source, batch_size=256, device="cpu").mean[:, 0].numpy()
    return said.to_numpy()


def scored(genes: Genes, said: np.ndarray, chromosomes) -> dict[str, float]:
    """Pearson over the genes of some chromosomes, with its interval, and Spearman."""
    rows = genes.on(chromosomes)
    y, p, rng = genes.y[rows], said[rows], np.random.default_rng(0)
    draws = [np.corrcoef(y[k], p[k])[0, 1] for k in rng.integers(0, len(y), size=(2000, len(y)))]
    low, high = np.quantile(draws, (0.025, 0.975))
    found = {
        "pearson": np.corrcoef(y, p)[0, 1],
        "low": low,
        "high": high,
        "spearman across genes": spearman_across_genes(y[None], p[None])[0],
    }
    return {name: float(value) for name, value in found.items()}


def rows_of(genes: Genes, config: gta.Config, *, tune: bool):
    """Names of rows, and what is said of genes by each."""
    chromosomes = CHOSEN_ON if tune else TESTED
    if not tune:
        sets, both = by_sets(genes)
        yield "gene sets", sets
        yield "gene sets and names", both
        yield "words", by_words(genes)
    model = fitted(genes, config, genes.texts)
    yield "gta", asked(genes, model, genes.texts, chromosomes)
    if tune:
        return
    for name, texts in (("texts of other genes", genes.dealt_out(1)), ("words in a drawn order", genes.mixed(1))):
        yield f"gta, asked by {name}", asked(genes, model, texts, chromosomes)
    for lm in ("random", "none"):
        model = fitted(genes, replace(config, lm=lm), genes.texts)
        yield f"gta, lm {lm}", asked(genes, model, genes.texts, chromosomes)
    texts = genes.dealt_out(2)
    yield "gta, texts of other genes", asked(genes, fitted(genes, config, texts), texts, chromosomes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SQ_IMPUTER_DATA", "../shared/data")))
    parser.add_argument("--tune", nargs="*", default=None, metavar="FIELD=VALUE")
    parser.add_argument("--language", type=Path, default=None, help="where the language model is kept")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    genes, config = Genes(args.data), gta.Config(length=0)
    for field in args.tune or ():
        name, _, value = field.partition("=")
        config = replace(config, **{name: type(getattr(config, name))(value)})
    with tempfile.TemporaryDirectory() as own:
        config = replace(config, language=language_of(genes, config, args.language or Path(own)))
        found, chromosomes = {}, TESTED if args.tune is None else CHOSEN_ON
        print(f"{genes.train.sum()} genes trained on, {genes.on(chromosomes).sum()} scored", flush=True)
        for name, said in rows_of(genes, config, tune=args.tune is not None):
            found[name] = scored(genes, said, chromosomes)
            print(f"{name:40s} {pd.Series(found[name]).round(3).to_dict()} {time.process_time():.0f} s", flush=True)
    if args.json is not None and args.tune is None:
        figures = json.loads(args.json.read_text())
        figures["gta"] = {name: {k: round(v, 4) for k, v in row.items()} for name, row in found.items()}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
