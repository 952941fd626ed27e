from __future__ import annotations

import gzip

import pytest


@pytest.fixture
def gene_info(tmp_path):
    """A gene_info file of three genes, in which XX and LFS1 could mean two of them."""
    path = tmp_path / "gene_info.gz"
    lines = [
        "#GeneID\tSymbol\tSynonyms\tdbXrefs\tdescription\tOther_designations",
        "7157\tTP53\tP53|LFS1|XX\tHGNC:1|Ensembl:ENSG00000141510\ttumor protein p53\tcellular tumor antigen p53",
        "1\tKRT5\tEBS2|XX\tEnsembl:ENSG00000186081\tkeratin 5\t-",
        "2\tKRT14\tLFS1\t-\tkeratin 14\tcytokeratin 14",
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path
