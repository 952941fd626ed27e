"""The command line: the same verbs on stores, one line for what is expected to go wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import spatialdata
from typer.testing import CliRunner

import sq_imputer as sqi
from sq_imputer import cli
from sq_imputer.errors import StoreError
from sq_imputer.section.slide import Slide


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of three stores, one per patient."""
    folder = tmp_path_factory.mktemp("stores")
    for name, sdata in sqi.datasets.toy(3, size_px=640, mpp=1.25, seed=11).items():
        sdata.write(folder / f"{name}.zarr")
    return folder


@pytest.fixture
def stores(written, tmp_path, monkeypatch, small_ridge):
    """The stores, as paths from the folder in which the commands run; ridge is quick there."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return [f"P{k}.zarr" for k in (1, 2, 3)]


def run(*arguments):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def main(monkeypatch, capsys, *arguments) -> str:
    """The one line that the command line itself leaves on stderr."""
    monkeypatch.setattr("sys.argv", ["sq-imputer", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    return err


def test_fit_predict_and_score_do_what_the_verbs_do(stores):
    said = run("fit", *stores[:2], "--model", "ridge", "--out", "model", "--genes", "8")
    assert "ridge of 8 genes, fitted on 2 sections: model" in said
    fitted = sqi.load("model")
    assert fitted.provenance["sections"] == ["P1", "P2"]
    said = run("predict", stores[2], "--model", "model")
    target = spatialdata.read_zarr(stores[2])
    assert f"{len(target.shapes['spots'])} rows x 8 genes: P3.zarr/tables/imputed" in said
    np.testing.assert_array_equal(target.tables["imputed"].X, fitted.predict(Slide.from_sdata(target)).mean)
    how = ["--reference", stores[0], "--reference", stores[1]]
    said = run("score", stores[2], *how, "--csv", "score.csv")
    assert "mean over 8 genes" in said
    assert all(word in said for word in ("pearson", "given depth", "r2", "depth only", "ridge on texture"))
    scores = pd.read_csv("score.csv")
    references = [spatialdata.read_zarr(store) for store in stores[:2]]
    expected = sqi.tl.score(target, reference=references)
    np.testing.assert_allclose(scores["pearson"], expected["pearson"])
    assert "ridge_pearson" in spatialdata.read_zarr(stores[2]).tables["imputed"].var


def test_predict_alone_is_out_of_fold(stores):
    how = ["--key-added", "two", "--seed", "3", "--n-repeats", "2"]
    run("predict", stores[0], "--model", "ridge", "--genes", "NUC1, GLD1", *how)
    table = spatialdata.read_zarr(stores[0]).tables["two"]
    assert list(table.var_names) == ["NUC1", "GLD1"]
    assert table.obs["ridge_fold"].nunique() == 5 and table.uns["sq_imputer"]["ridge"]["seed"] == 3
    assert table.obsm["ridge_folds"].shape == (table.n_obs, 2)
    run("score", stores[0], "--key", "two", "--no-baselines")


def test_classes_are_fitted_predicted_and_scored_by_name(stores, monkeypatch, capsys):
    for store in stores[:2]:
        sdata = spatialdata.read_zarr(store)
        nuclei = sdata.tables["table"].obs["nuclei"]
        sdata.tables["table"].obs["most"] = np.where(nuclei > nuclei.median(), "nuclei", "stroma")
        sdata.write(f"labeled_{store}")
    said = run("fit", "labeled_P1.zarr", "--target", "obs:most", "--out", "model")
    assert "ridge of 2 classes, fitted on 1 sections: model" in said
    said = run("predict", "labeled_P2.zarr", "--model", "model")
    assert "rows x 2 classes: labeled_P2.zarr/tables/imputed_most" in said.replace("\n", "")
    said = run("score", "labeled_P2.zarr", "--key", "imputed_most", "--reference", "labeled_P1.zarr")
    assert all(word in said for word in ("mean over 2 classes", "balanced", "auroc", "coordinates"))
    assert "--kind is 'composition', of no target" in main(
        monkeypatch, capsys, "fit", "labeled_P1.zarr", "--kind", "composition", "--out", "other"
    )


def test_predict_from_references_fits_there(stores):
    run("predict", stores[0], "--genes", "5", "--reference", stores[1], "--reference", stores[2])
    record = spatialdata.read_zarr(stores[0]).tables["imputed"].uns["sq_imputer"]["ridge"]
    assert list(record["training_sections"]) == ["P2", "P3"]
    run("predict", stores[0], "--genes", "5", "--reference", stores[1], "--overwrite")
    record = spatialdata.read_zarr(stores[0]).tables["imputed"].uns["sq_imputer"]["ridge"]
    assert list(record["training_sections"]) == ["P2"]


def test_a_run_may_be_resumed_and_its_result_go_elsewhere(stores, tmp_path):
    before = sorted(Path(stores[0]).rglob("*"))
    said = run("predict", stores[0], "--genes", "5", "--resume", "--output", str(tmp_path / "out.zarr"))
    assert "out.zarr/tables/imputed" in said.replace("\n", "")
    assert spatialdata.read_zarr(tmp_path / "out.zarr").tables["imputed"].n_vars == 5
    assert sorted(Path(stores[0]).rglob("*")) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_gene_that_does_not_vary_is_counted(stores):
    sdata = spatialdata.read_zarr(stores[0])
    table = sdata.tables["table"]
    counts = table.X.toarray()
    counts[:, table.var_names == "GLD1"] = 0
    table.X = type(table.X)(counts)
    sdata.write("flat.zarr")
    with pytest.warns(UserWarning, match="1 of 3 genes: 'GLD1'"):
        run("predict", "flat.zarr", "--genes", "NUC1,GLD1,STR1")
    said = run("score", "flat.zarr")
    assert "ridge: 1 genes do not vary" in said
    assert "nan" not in said.split("mean over")[1].split("genes do not vary")[0]
    assert "ridge is ridge on texture, the baseline, and stands there once" in said


def test_a_score_that_there_is_not_is_a_dash(capsys):
    known = {"low": np.nan, "high": np.nan, "n_genes": 2, "nan_genes": ""}
    rows = [
        {"predictor": name, "metric": metric, "mean": mean, "n_nan": 2 * int(np.isnan(mean)), **known}
        for name, mean in {"nsl": 0.5, "mean": np.nan}.items()
        for metric in ("pearson", "pearson_given_depth", "r2")
    ]
    cli._print_summary(pd.DataFrame(rows), "here")
    said = capsys.readouterr().out
    assert "nan" not in said and said.count("–") == 4 and "0.50" in said
    assert said.count("– a constant, such as the mean, has no correlation") == 1


def test_stores_of_one_name_in_two_folders_are_two_sections(stores, tmp_path):
    for store, folder in zip(stores[:2], ("a", "b"), strict=True):
        shutil.move(store, tmp_path / folder / "section.zarr")
    run("fit", "a/section.zarr", "b/section.zarr", "--out", "model", "--genes", "4")
    assert sqi.load("model").provenance["sections"] == ["a/section.zarr", "b/section.zarr"]


def test_models_says_what_they_are_and_where_not_to_trust_them():
    said = " ".join(run("models").split())
    assert all(name in said for name in ("model", "what", "limits", *sqi.list_models()))
    assert all(name in said for name in ("zoo:deepspotm", "license", "commercial use", "virchow2", "Apache-2.0"))


def test_no_command_shows_the_help():
    result = CliRunner().invoke(cli.app, [])
    assert all(name in result.output for name in ("demo", "fit", "predict", "score", "models"))


WRONG = {
    "no store": (["predict", "none.zarr"], "no SpatialData store at 'none.zarr', but nothing"),
    "no such store": (["predict", "."], "no SpatialData store at '.', but another folder"),
    "model": (["predict", "P1.zarr", "--model", "stm"], "no model 'stm'"),
    "genes": (["predict", "P1.zarr", "--genes", "NUC1,nope"], "1 of 2 genes are not in section"),
    "image": (["fit", "P1.zarr", "--image-key", "HE"], "no image 'HE'; sdata has 'he'"),
    "shapes": (["predict", "P1.zarr", "--shapes-key", "bins"], "no shapes 'bins'; sdata has 'spots'"),
    "table": (["predict", "P1.zarr", "--table-key", "counts"], "no table 'counts'; sdata has 'table'"),
    "score": (["score", "P1.zarr"], "no prediction in tables['imputed']"),
    "out": (["fit", "P1.zarr", "--out", "P2.zarr"], "'P2.zarr' exists already"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_expected_error_is_one_line_and_exit_code_1(stores, monkeypatch, capsys, case):
    arguments, message = WRONG[case]
    said = main(monkeypatch, capsys, *arguments)
    assert said.startswith("error: ") and message in said


def test_nothing_else_is_said_on_stderr(stores):
    command = [sys.executable, "-m", "sq_imputer", "score", "P1.zarr"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert (
        result.stderr
        == "error: no prediction in tables['imputed']; sdata has 'table'. Call `sq-imputer predict` first, or pass "
        "--key.\n"
    )


def test_the_training_section_is_refused(stores, monkeypatch, capsys):
    run("fit", stores[0], "--out", "model", "--genes", "4")
    assert "the very section to be predicted" in main(monkeypatch, capsys, "predict", stores[0], "--model", "model")


def test_the_demo_does_not_write_over_an_earlier_one(tmp_path, monkeypatch, capsys):
    (tmp_path / "score.csv").write_text("mine")
    said = main(monkeypatch, capsys, "demo", "--folder", tmp_path)
    assert "score.csv' exists already; pass --overwrite, or --folder another one" in said
    assert [path.name for path in tmp_path.iterdir()] == ["score.csv"]
    assert (tmp_path / "score.csv").read_text() == "mine"


def test_where_the_output_goes_is_proved_before_anything_is_computed(stores, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sq_imputer.cli._open", lambda *_: pytest.fail("opened before the output was checked"))
    monkeypatch.setattr("sq_imputer.cli._open_all", lambda *_: pytest.fail("opened before the output was checked"))
    assert "is a folder; pass --csv the name of a file" in main(
        monkeypatch, capsys, "score", stores[0], "--csv", tmp_path
    )
    (tmp_path / "file").touch()
    said = main(monkeypatch, capsys, "fit", stores[0], "--out", tmp_path / "file" / "new" / "model")
    assert f"'{tmp_path / 'file'}' is a file" in said and "pass --out elsewhere" in said
    asked = []

    def refuse(store, *_):  # root may write anywhere
        asked.append(store)
        raise StoreError("no permission.")

    monkeypatch.setattr("sq_imputer.store.disk.check_writable", refuse)
    said = main(monkeypatch, capsys, "score", stores[0], "--csv", tmp_path / "new" / "below" / "s.csv")
    assert "no permission. Pass --csv elsewhere." in said
    assert asked == [tmp_path / "new"] and not asked[0].exists()


def test_the_folders_that_lead_to_the_output_are_made(stores):
    run("fit", stores[0], "--out", "results/models/one", "--genes", "4")
    assert sqi.load("results/models/one").provenance["sections"] == ["P1"]
    run("predict", stores[1], "--model", "results/models/one")
    run("score", stores[1], "--no-baselines", "--csv", "results/scores/one.csv")
    assert len(pd.read_csv("results/scores/one.csv")) == 4


def test_a_table_of_several_sections_is_scored_section_by_section(stores):
    parts = {name: spatialdata.read_zarr(f"{name}.zarr") for name in ("P1", "P2")}
    both = spatialdata.concatenate(parts, concatenate_tables=True)
    sqi.tl.predict(both, "ridge", sections="region", genes=4)
    expected = sqi.tl.score(both)
    both.write("both.zarr")
    said = " ".join(run("score", "both.zarr", "--csv", "both.csv").split())
    assert all(f"section {name}" in said for name in both.tables["imputed"].obs["section"].unique())
    scores = pd.read_csv("both.csv")
    assert list(scores["section"]) == list(expected["section"])
    np.testing.assert_allclose(scores["pearson"], expected["pearson"])


def test_the_version_is_that_of_the_package():
    assert run("--version").strip() == sqi.__version__


# Encoders -----------------------------------------------------------------------------------------


def test_a_weights_file_reaches_the_encoder_that_is_named(stores, monkeypatch):
    asked = []

    def noted(*_, **given):
        asked.append(given)
        raise sqi.BadInput("asked")

    monkeypatch.setattr(sqi.tl, "fit", noted)
    for given, expected in (
        (("--encoder", "uni", "--weights", "u.safetensors"), "u.safetensors"),
        (("--encoder", "uni", "--weights", "uni=u.safetensors"), {"uni": "u.safetensors"}),
        (("--encoder", "uni", "--weights", "uni=a", "--weights", "conch=b"), {"uni": "a", "conch": "b"}),
    ):
        CliRunner().invoke(cli.app, ["fit", *stores[:1], *given])
        assert asked[-1]["weights"] == expected and asked[-1]["config"] == {"encoders": ("uni",), "size_px": 224}
    assert cli._config(None) is None and cli._config(["texture"]) == {"encoders": ("texture",)}


def test_weights_and_encoders_that_do_not_go_together_are_refused(stores, monkeypatch, capsys):
    said = main(monkeypatch, capsys, "fit", *stores[:1], "--weights", "w.safetensors")
    assert "weights is given, but encoders 'texture' have none" in said
    said = main(monkeypatch, capsys, "predict", stores[0], "--weights", "a", "--weights", "uni=b")
    assert "of several files each is ENCODER=FILE" in said
    said = main(monkeypatch, capsys, "fit", *stores[:1], "--encoder", "uni", "--encoder", "conch")
    assert "take crops of '224', '448' pixels; a model has one size" in said
    said = main(monkeypatch, capsys, "fit", *stores[:1], "--encoder", "uni", "--weights", "none.safetensors")
    assert "encoder 'uni': no file 'none.safetensors'" in said


def test_view_opens_the_window_and_says_what_is_missing_without_it(stores, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("sq_imputer.widget.open", lambda store, **how: opened.append((store, how)))
    monkeypatch.setitem(sys.modules, "napari", SimpleNamespace(run=lambda: opened.append("run")))
    run("view", stores[0], "--image-key", "he")
    kept = {"image_key": "he", "table_key": "table", "coordinate_system": None}
    assert opened == [(Path(stores[0]), kept), "run"]
    monkeypatch.undo()
    monkeypatch.setattr("sq_imputer.widget.find_spec", lambda name: None)
    assert "pip install 'sq-imputer[napari]'" in main(monkeypatch, capsys, "view", stores[0])


def test_a_report_is_one_file_beside_the_store(stores, monkeypatch, capsys):
    run("predict", stores[0], "--genes", "NUC1")
    said = run("report", stores[0], "--out", "P1.html")
    assert said.strip() == "P1.html" and "data:image/png" in Path("P1.html").read_text()
    assert "P1.html' exists already" in main(monkeypatch, capsys, "report", stores[0], "--out", "P1.html")
