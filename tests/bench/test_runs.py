"""Benchmarks from a file: resumed, repeated to the bit, and refused where the split leaks."""

from __future__ import annotations

import json
from concurrent import futures
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.bench import BenchConfig, _runs, _tasks

QUICK = {"steps": 20, "width": 8}


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    """Sections of three patients in stores."""
    folder = tmp_path_factory.mktemp("stores")
    for name, sdata in sqi.datasets.toy(3, size_px=480, mpp=1.25, seed=11).items():
        table = sdata.tables["table"]
        table.obsm["X_latent"] = np.log1p(np.asarray(table[:, :4].to_df(), dtype=np.float32))
        sdata.write(folder / f"{name}.zarr")
    return folder


def written(folder: Path, **changes) -> Path:
    held = {
        "protocol": "hescape",
        "sections": {name: f"{name}.zarr" for name in ("P1", "P2", "P3")},
        "split": {"train": ["P1"], "test": ["P2", "P3"]},
        "contrasts": {"clip": QUICK, "siglip": {**QUICK, "loss": "siglip", "genes": "latent"}},
        "latent": "X_latent",
        "n_genes": 6,
        "size_px": 32,
        "device": "cpu",
        **changes,
    }
    path = folder / f"{held['protocol']}.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in held.items() if value is not None}))
    return path


@pytest.fixture(scope="module")
def done(stores, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "out"
    return bench.run_config(written(stores), out), out


def test_every_task_is_in_one_tidy_table_with_its_chance(done):
    table, _ = done
    assert set(table["task"]) == {"retrieval", "expression", "batch"}
    assert set(table["case"]) == {"P2", "P3", "P2, P3"}
    assert set(table[table["case"] == "P2, P3"]["task"]) == {"batch"} and not table["shares_patient"].any()
    recall = table[table["metric"] == "recall@5"]
    assert set(recall["subject"]) == {"texture | clip", "texture | siglip"} and (recall["chance"] > 0).all()
    assert set(recall["detail"]) == {
        f"{a} to {b}, {g}"
        for a, b in (("image", "expression"), ("expression", "image"))
        for g in ("batch:64", "section", "all")
    }
    probes = table[table["task"] == "expression"]
    subjects = {"mean", "depth only", "coordinates only", "texture | untuned", "texture | clip", "texture | siglip"}
    assert set(probes["subject"]) == subjects and set(probes["detail"]) == {"ridge-pca128"}
    chance = recall[recall["detail"].str.startswith("image")].groupby("detail")["chance"].first()
    assert chance["image to expression, all"] < 0.7 * chance["image to expression, section"]


def test_what_is_left_repeats_it_to_the_bit(done, tmp_path):
    table, out = done
    assert {p.name for p in out.iterdir()} == {
        "results.parquet",
        "audit.csv",
        "config.yaml",
        "provenance.json",
        "parts",
    }
    again = bench.run_config(out / "config.yaml", tmp_path / "again")
    pd.testing.assert_frame_equal(table, again, check_exact=True)
    one, other = (json.loads((f / "provenance.json").read_text()) for f in (out, tmp_path / "again"))
    assert one["results_sha256"] == other["results_sha256"]


def test_only_what_is_missing_is_run_again(stores, tmp_path, monkeypatch):
    path = written(
        stores, protocol="leave_patient_out", split=None, models={"ridge": {"context_um": [], "size_px": 32}}
    )
    ran, every = [], _tasks.all_tasks
    monkeypatch.setattr(
        _tasks, "all_tasks", lambda config, fold, seed: ran.append((fold.name, seed)) or every(config, fold, seed)
    )
    first = bench.run_config(path, tmp_path / "out")
    monkeypatch.setattr(_runs, "crop_hashes", None)  # crops are looked at once
    assert ran == [("P1", 0), ("P2", 0), ("P3", 0)] and set(first["case"]) == {"P1", "P2", "P3"}
    next((tmp_path / "out" / "parts").glob("*-1-0.parquet")).unlink()
    second = bench.run_config(path, tmp_path / "out")
    assert ran[3:] == [("P2", 0)]
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_processes_change_no_number(stores, tmp_path, monkeypatch):
    """Cases know nothing of each other, so that one process takes both here: to begin a second takes seconds."""
    asked, pool = [], futures.ProcessPoolExecutor
    monkeypatch.setattr(
        futures, "ProcessPoolExecutor", lambda n, *how, **more: asked.append(n) or pool(1, *how, **more)
    )
    path = written(stores, contrasts={"clip": QUICK}, latent=None, tasks=["retrieval"], seeds=[0, 1])
    one, two = (bench.run_config(path, tmp_path / f"by {n}", processes=n) for n in (1, 2))
    assert asked == [2]
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    by_seed = [part.reset_index(drop=True) for _, part in two.groupby("seed")]
    assert len(by_seed) == 2 and len(two) == 2 * len(by_seed[0])
    assert (by_seed[0]["value"] != by_seed[1]["value"]).any()


def test_a_leak_is_refused_before_anything_is_fitted(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(_runs, "_carry_out", None)
    sections = {"P1": "P1.zarr", "P2": "P1.zarr", "P3": "P3.zarr"}
    with pytest.raises(sqi.BadInput, match="the split leaks"):
        bench.run_config(written(stores, sections=sections), tmp_path / "out")


def test_another_benchmark_is_not_written_over(stores, done):
    with pytest.raises(sqi.BadInput, match="another benchmark"):
        bench.run_config(written(stores, n_genes=5), done[1])


def test_scores_per_gene_are_those_of_the_leaderboard(done):
    scores = bench.scores_of(done[0], "expression")
    assert {"gene", "predictor", "case", "shares_patient", "rank", "pearson"} <= set(scores)
    assert len(scores) == 6 * 6 * 2
    who = "gene == @scores.gene[0] and case == 'P2'"
    expected = done[0].query(f"subject == 'texture | clip' and metric == 'mse' and {who}")["value"]
    found = scores.query(f"predictor == 'texture | clip' and {who}")["mse"]
    np.testing.assert_allclose(found, expected)
    with pytest.raises(sqi.BadInput, match="no task 'models'"):
        bench.scores_of(done[0])


def test_replicates_are_within_a_patient_and_marked(toy_slides):
    folds = bench._protocols.folds_of(bench.protocol("replicate"), toy_slides, None)
    assert len(folds) == 3 and all(fold.cases[0].shares_patient for fold in folds)
    with pytest.raises(sqi.BadInput, match="needs a split"):
        bench._protocols.folds_of(bench.protocol("transfer"), toy_slides, None)
    one, other = (slide.section for slide in toy_slides[:2])
    with pytest.raises(sqi.BadInput, match="expected each section once"):
        bench._protocols.folds_of(bench.protocol("transfer"), toy_slides, [{"train": [one], "test": [other]}] * 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "hescap"}, "no protocol 'hescap'"),
        ({"sectoins": {}}, "fields are 'sections'"),
        ({"tasks": ["retreival"]}, "tasks are"),
        ({"probe": "ridge"}, "probes"),
        ({"protocol": "transfer"}, "name some"),
        ({"contrasts": {"clip": {"stepz": 5}}}, "config names 'stepz'"),
        ({"n_genes": "many"}, "n_genes"),
        ({"protocol": "zero_shot", "split": None, "models": {"bilinear": {}}}, "say knowledge"),
        ({"split": ["P1"]}, "split is"),
        ({"latent": None}, "'siglip' has genes: latent; say which"),
    ],
)
def test_a_config_says_what_is_wrong_with_it(stores, changes, message):
    with pytest.raises(sqi.SqImputerError, match=message):
        BenchConfig.read(written(stores, **changes))


def test_the_copy_beside_the_results_is_the_same_config_also_of_a_relative_path(stores, tmp_path, monkeypatch):
    written(stores)
    monkeypatch.chdir(stores)
    config = BenchConfig.read("hescape.yaml")
    config.write(tmp_path / "config.yaml")
    assert BenchConfig.read(tmp_path / "config.yaml").identity == config.identity
    assert all(Path(store).is_dir() for store in config.sections.values())


def test_a_file_that_is_no_config_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("- a\n- b\n")
    with pytest.raises(sqi.BadInput, match="holds a list"):
        BenchConfig.read(tmp_path / "a.yaml")
    with pytest.raises(sqi.MissingKey, match="no config"):
        BenchConfig.read(tmp_path / "b.yaml")


def test_a_transformer_is_tuned_from_its_file_and_only_from_that(stores, tmp_path):
    timm = pytest.importorskip("timm", reason="timm is an extra: sq-imputer[encoders]", exc_type=ImportError)
    import torch
    from safetensors.torch import save_file

    for number, name in enumerate(("a", "b")):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            save_file(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / f"{name}.safetensors")
    low_rank = {"low rank": {"steps": 2, "width": 8, "finetune": "lora", "rank": 2, "batch_size": 4}}
    how = {"contrasts": low_rank, "encoders": ["timm:test_vit"], "size_px": 160, "tasks": ["expression"]}
    how["split"] = {"train": ["P1"], "val": ["P2"], "test": ["P3"]}
    path = written(stores, **how, latent=None, weights={"timm:test_vit": str(tmp_path / "a.safetensors")})
    table = bench.run_config(path, tmp_path / "out")
    means = table[table["metric"] == "mse"].groupby("subject")["value"].mean()
    assert means["timm:test_vit | untuned"] != means["timm:test_vit | low rank"]
    assert len(json.loads((tmp_path / "out" / "provenance.json").read_text())["files_sha256"]["a.safetensors"]) == 64
    slide = sqi.Slide.from_sdata(sqi.io.read_zarr(stores / "P1.zarr"))
    spec, one = sqi.CropSpec(112.0, 160), tmp_path / "a.safetensors"
    pairs = bench.pairs([slide], list(slide.var_names[:4]), "timm:test_vit", spec=spec, weights=one, crops=True)
    with pytest.raises(sqi.BadInput, match="weights"):
        bench.contrast(pairs, config=bench.Contrast(**low_rank["low rank"]), weights=tmp_path / "b.safetensors")


def test_genes_that_were_left_out_are_asked_for_by_what_is_known_of_them(stores, tmp_path, monkeypatch):
    """The protocol hands every case to `bench.leave_genes_out`, with knowledge, chromosomes, panel and seed."""
    asked = []

    def scored(cases, models, **how):
        asked.append((cases[0].name, models["bilinear"].knowledge, how))
        genes = pd.DataFrame({"predictor": ["bilinear", "bilinear, permuted"], "gene": ["G1", "G1"]})
        return genes.assign(section=cases[0].name, pearson=[0.4, 0.1], n_spots=20, fold=0, similarity=0.5)

    monkeypatch.setattr(_tasks, "leave_genes_out", scored)
    np.savez(tmp_path / "known.npz", names=np.array(["G1", "G2"]), vectors=np.eye(2, dtype=np.float32))
    sets = ["\t".join([f"set{i}", "", *(f"G{k}" for k in range(3 * i, 3 * i + 9))]) for i in range(3)]
    (tmp_path / "sets.gmt").write_text("\n".join(sets) + "\n")
    more = {"knowledge": [str(tmp_path / "known.npz"), str(tmp_path / "sets.gmt")]}
    path = written(stores, protocol="zero_shot", split=None, models={"bilinear": {}}, **more, chromosomes="gene_info")
    (stores / "gene_info").write_text("")
    table = bench.run_config(path, tmp_path / "out")
    assert [name for name, *_ in asked] == ["P1", "P2", "P3"] and asked[0][1].name == "known+sets"
    assert asked[0][2]["chromosomes"] == str(stores / "gene_info") and asked[0][2]["n_genes"] == 6
    assert set(table["task"]) == {"zero_shot"}
    scores = bench.scores_of(table, "zero_shot")
    means = scores.groupby("predictor")["pearson"].mean().to_dict()
    assert means == pytest.approx({"bilinear": 0.4, "bilinear, permuted": 0.1})
    assert set(json.loads((tmp_path / "out" / "provenance.json").read_text())["files_sha256"]) == {
        "known.npz",
        "sets.gmt",
        "gene_info",
    }
