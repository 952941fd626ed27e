"""Four sections in one object, as one call predicts them and as the benchmark does: the same numbers.

C2 to C5 of the her2st data are joined by `spatialdata.concatenate`, which keeps the genes that all sections have.
`tl.predict(sections=, leave_out="section")` is compared with `bench.run` over `bench.leave_one_out` of the same object,
domains are made over all, and the table is read back.

    python benchmarks/joined.py --data <folder with her2st>
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import spatialdata

import sq_imputer as sqi


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--model", default="ridge")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sections = sqi.datasets.her2st(None if args.data is None else args.data / "her2st")
    joined = spatialdata.concatenate(sections, concatenate_tables=True)
    with tempfile.TemporaryDirectory() as folder:
        joined.write(Path(folder) / "joined.zarr")
        cases = sqi.bench.leave_one_out(joined, sections="region", share_patient=True)
        genes = sqi.genes.choose_genes([case.test for case in cases], 50)
        sqi.tl.predict(joined, args.model, sections="region", leave_out="section", genes=genes)
        sqi.tl.domains(joined, n_domains=5, method="kmeans")
        table = spatialdata.read_zarr(Path(folder) / "joined.zarr").tables["imputed"]
        largest = 0.0
        for outcome in sqi.bench.outcomes(cases, {args.model: sqi.get_model(args.model)()}, genes=genes):
            name, other = outcome.case.test.section, outcome.predicted[args.model]
            values = np.asarray(table[(table.obs["section"] == name).to_numpy()].layers[args.model])[outcome.case.rows]
            largest = max(largest, float(np.abs(values - other).max()))
            print(f"{name}: {values.shape}, largest difference {np.abs(values - other).max():.1e}")
        print(f"largest difference {largest:.1e}")
        print(table.obs.groupby("section", observed=True)["domain"].value_counts().unstack().to_string())


if __name__ == "__main__":
    main()
