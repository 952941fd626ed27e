"""To another patient: models fitted on her2st C2 to C5, tested on B4 of patient B (shallow: median 648 UMI).

python benchmarks/transfer.py [--data FOLDER] [--models ridge mlp nsl]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from accuracy import models, summary

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.data.slide import Slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--models", nargs="+", default=["ridge", "mlp", "nsl"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = None if args.data is None else args.data / "her2st"
    sections = sqi.datasets.her2st(folder, sections=("C2", "C3", "C4", "C5", "B4"))
    *training, test = [Slide.from_sdata(sdata, section=name) for name, sdata in sections.items()]
    case = bench.Case("C to B4", tuple(training), test, np.flatnonzero(np.nan_to_num(test.depth) > 0), False)
    print(summary(bench.run([case], models(args.models), n_genes=250), (50, 250)).to_string())


if __name__ == "__main__":
    main()
