"""To another patient: models fitted on her2st C2 to C5, tested on B4 of patient B (shallow: median 648 UMI).

python benchmarks/transfer.py [--data FOLDER] [--models ridge mlp nsl stem mclstexp]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import frozen
import numpy as np
import torch
from accuracy import models, summary

from sq_imputer import bench
from sq_imputer.predictor.train import Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--models", nargs="+", default=["ridge", "mlp", "nsl", "stem", "mclstexp"])
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training = frozen.read("her2st", args.data)
    test = next(slide for slide in frozen.read("tuning", args.data) if slide.section == "B4")
    case = bench.Case("C to B4", tuple(training), test, np.flatnonzero(np.nan_to_num(test.depth) > 0), False)
    print(
        summary(
            bench.run([case], models(args.models), n_genes=250, plan=Plan(device=args.device)), (50, 250)
        ).to_string()
    )


if __name__ == "__main__":
    main()
