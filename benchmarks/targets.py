"""Targets other than genes on real tissue: the pathologist's labels of her2st A1, out of fold, beside baselines.

    python benchmarks/targets.py [--data FOLDER]

Rows are balanced accuracy, macro AUROC and AUPRC, log-loss and calibration error of `ridge` and of what stands beside
it: how frequent classes are (mean), depth alone, coordinates alone, ridge on the texture. Spots that the pathologist
left undetermined count as not labeled. One section of 346 spots in five blocks: intervals are wide, and say so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sq_imputer as sqi

UNKNOWN = "undetermined"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    arguments = parser.parse_args()
    path = None if arguments.data is None else arguments.data / "her2st"
    sdata = sqi.datasets.her2st(path, sections=("A1",))["A1"]
    labels = sdata.tables["table"].obs["label"].astype(object)
    sdata.tables["table"].obs["label"] = labels.where(labels != UNKNOWN)
    sqi.tl.predict(sdata, "ridge", target="obs:label", progress=False)
    scores = sqi.tl.score(sdata, target="obs:label", per="section", progress=False)
    print(scores.pivot(index="predictor", columns="metric", values="mean").round(3).to_string())
    print(scores[scores["predictor"] == "ridge"].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
