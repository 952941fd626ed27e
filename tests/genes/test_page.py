"""The page on the gene's own sequence: its blocks on windows run, on a made genome whose files are called as there."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from defaults import with_defaults
from dna import SMALL

import sq_imputer as sqi

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "genes.md"
CHROMS = {f"chr{name}": 2000 for name in (*range(1, 6), 22, "X")}


def made() -> pd.DataFrame:
    """Files of a small genome in the current folder, and a table of its genes."""
    rng = np.random.default_rng(0)
    letters = {name: "".join(rng.choice(list("ACGT"), n)) for name, n in CHROMS.items()}
    Path("hg38.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in letters.items()))
    line = '{}\tx\tgene\t{}\t{}\t.\t+\t.\tgene_id "G{}"; gene_name "N{}";\n'
    rows = [(chrom, 100 * k + 50, 100 * k + 90, f"{chrom}{k}", f"{chrom}{k}") for chrom in CHROMS for k in range(4)]
    Path("gencode.v44.gtf.gz").write_bytes(gzip.compress("".join(line.format(*row) for row in rows).encode()))
    bed = "".join(f"{chrom}\t10\t20\n" for chrom in CHROMS).encode()
    Path("hg38-blacklist.v2.bed.gz").write_bytes(gzip.compress(bed))
    Path("fragments.tsv.gz").write_bytes(gzip.compress(bed.replace(b"\n", b"\tAAAC-1\t1\n")))
    pybigtools = pytest.importorskip("pybigtools")
    pybigtools.open("K562_dnase.bigWig", "w").write(CHROMS, iter([(chrom, 5, 9, 1.0) for chrom in CHROMS]))
    return pd.DataFrame({"y": rng.normal(size=len(rows))}, index=[f"N{row[3]}" for row in rows])


def test_windows_and_splits_of_the_page(tmp_path, monkeypatch):
    pytest.importorskip("pyfaidx")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    there = {"table": made()}
    for block in [block for block in blocks if "fragments" in block or "split_by_chromosome" in block]:
        exec(compile(block, str(PAGE), "exec"), there)
    assert len(there["parts"]) == len(CHROMS) and there["windows"].tracks == ("dnase", "atac")
    assert [part.section for part in there["test"]] == ["chr22", "chrX"] and len(there["folds"]) == 5


def test_expression_from_dna_as_the_page_has_it(section, tmp_path, monkeypatch):
    pytest.importorskip("pyfaidx")
    monkeypatch.chdir(tmp_path)
    made()
    names = section.tables["table"].var_names
    rows = [f"chr{k % 5 + 1}\t{300 + 20 * k}\t{301 + 20 * k}\t{name}\t0\t+\n" for k, name in enumerate(names)]
    Path("gencode.v44.gtf.gz").write_bytes(gzip.compress("".join(rows).encode()))  # as BED
    with_defaults(monkeypatch, "seq2exp", SMALL)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    there = {"sqi": sqi, "sdata": section}
    for block in [block for block in blocks if "sequence_prior" in block]:
        exec(compile(block.replace("length=1000", "length=160"), str(PAGE), "exec"), there)
    assert section.tables["table"].var["seq2exp"].notna().all() and len(there["effects"]) == len(there["stretches"])
    assert Path("stretches.bed").read_text().count("\n") == len(there["stretches"])
