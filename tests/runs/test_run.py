"""Runs that are killed and go on, and what a journal must not be confused with."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import spatialdata
import torch
from fixtures_of_verbs import Spy
from killed import predict_slowly

import sq_imputer as sqi
from sq_imputer.encoders import texture
from sq_imputer.pixels import dense
from sq_imputer.section.slide import Slide
from sq_imputer.store import commit as store
from sq_imputer.store import journal, write
from sq_imputer.store.journal import Journal
from sq_imputer.store.provenance import pythonic

QUICK = {"n_folds": 3, "buffer_um": 100.0}
MODELS = ("spy", "ridge")


class Killed(BaseException):
    """Stands for a signal that ends the process: no `except Exception` sees it."""


@contextmanager
def killed_after(files: int):
    """Lets a run write so many files of its journal and then ends it."""
    left = [files]

    def writes(self, path, content, write_file=Journal._replace):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        write_file(self, path, content)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Journal, "_replace", writes)
        yield


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(journal, "ROWS", 4)
    monkeypatch.setattr(dense, "STRIDES", dense.STRIDES[:1])


@pytest.fixture
def how(genes):
    """Arguments for each model."""
    quick = {"config": {"size_px": 32, "context_um": ()}, "n_folds": 2}
    return {"spy": {"genes": genes, **QUICK}, "ridge": {"genes": genes, **QUICK, **quick}}


@pytest.fixture(scope="module")
def wholes() -> dict:
    """What `whole` gave, by the model: made once."""
    return {}


@pytest.fixture
def whole(whole_store, spy, how, tmp_path, wholes):
    """A function that gives the table of a run that nobody interrupted."""

    def predicted(model: str):
        if model not in wholes:
            path = shutil.copytree(whole_store, tmp_path / "whole.zarr")
            sqi.tl.predict(spatialdata.read_zarr(path), model, resume=True, **how[model])
            wholes[model] = spatialdata.read_zarr(path).tables["imputed"]
        return wholes[model]

    return predicted


@pytest.fixture(scope="module")
def begun_runs() -> list:
    """The folder of `begun`, made once."""
    return []


@pytest.fixture
def begun(whole_store, begun_runs, spy, how, tmp_path, tmp_path_factory):
    """The section in a store of its own, beside the journal of a run of `spy` that was killed."""
    if not begun_runs:
        folder = tmp_path_factory.mktemp("begun")
        sdata = spatialdata.read_zarr(shutil.copytree(whole_store, folder / "section.zarr"))
        with killed_after(5):
            sqi.tl.predict(sdata, "spy", resume=True, **how["spy"])
        begun_runs.append(folder)
    shutil.copytree(begun_runs[0], tmp_path, dirs_exist_ok=True)
    return spatialdata.read_zarr(tmp_path / "section.zarr")


def journals(sdata) -> list:
    return sorted(sdata.path.parent.glob(f".{sdata.path.name}.*.run"))


def shards(sdata) -> list[str]:
    return sorted(path.name for folder in journals(sdata) for path in folder.glob("*.shard"))


def same(one, other) -> None:
    for slot in ("layers", "obsm"):
        assert set(getattr(one, slot)) == set(getattr(other, slot))
        for name in getattr(one, slot):
            np.testing.assert_array_equal(np.asarray(getattr(one, slot)[name]), np.asarray(getattr(other, slot)[name]))
    one_obs, other_obs = (table.obs.filter(regex="(?<!_record)$") for table in (one, other))  # which has the date
    assert one_obs.equals(other_obs)
    said = [pythonic(table.uns["sq_imputer"]) for table in (one, other)]
    for record in said:
        for layer in record.values():
            layer.pop("date", None)
    assert said[0] == said[1]


@pytest.mark.parametrize("model", MODELS)
def test_a_run_killed_anywhere_goes_on_and_gives_what_an_uninterrupted_one_gives(stored, how, whole, model):
    expected, files = whole(model), 0
    seen = []
    while True:  # killed again and again, some files later each time
        with killed_after(3 if model == "spy" else 5):
            sqi.tl.predict(spatialdata.read_zarr(stored.path), model, resume=True, **how[model])
            raise Killed  # it came to its end
        if not journals(stored):
            break
        files += 1
        seen.append(len(shards(stored)))
        assert not (stored.path / "tables/imputed").exists()
    assert files >= 5 and seen == sorted(seen)
    same(spatialdata.read_zarr(stored.path).tables["imputed"], expected)


@pytest.mark.parametrize("model", MODELS)
def test_at_most_one_shard_is_computed_again(stored, spy, how, monkeypatch, model):
    asked = []
    parts = Journal.parts

    def counted(self, name, order, compute):
        return parts(self, name, order, lambda rows: asked.append((name, *rows)) or compute(rows))

    monkeypatch.setattr(Journal, "parts", counted)
    with killed_after(6):
        sqi.tl.predict(stored, model, resume=True, **how[model])
    before = list(asked)
    sqi.tl.predict(stored, model, resume=True, **how[model])
    assert len(before) == 6  # the manifest was written as well
    assert [one for one in before if one in asked[6:]] == before[-1:]
    assert len(set(asked)) == len(asked) - 1


def test_what_is_known_of_a_section_is_found_once_for_all_shards(section, stored, how, monkeypatch):
    whole = []
    all_features = Slide.all_features
    monkeypatch.setattr(Slide, "all_features", lambda *a, **k: whole.append(1) or all_features(*a, **k))
    sqi.tl.predict(section, "ridge", **how["ridge"])
    plain = len(whole)
    sqi.tl.predict(stored, "ridge", resume=True, **how["ridge"])
    assert len(whole) == 2 * plain


def test_models_and_features_are_not_made_again(stored, spy, how, monkeypatch):
    with killed_after(8):
        sqi.tl.predict(stored, "spy", resume=True, **how["spy"])
    fits = len(spy.fits)
    sqi.tl.predict(stored, "spy", resume=True, **how["spy"])
    assert fits == 2 and len(spy.fits) == 3  # three folds

    encoded = []
    gather = texture.Texture.gather

    def counted(self, maps, boxes):
        found = gather(self, maps, boxes)
        encoded.append(len(found))
        return found

    monkeypatch.setattr(texture.Texture, "gather", counted)
    again = {**how["ridge"], "layer_added": "again", "resume": True}
    with killed_after(10):
        sqi.tl.predict(stored, "ridge", **again)
    first = sum(encoded)
    sqi.tl.predict(stored, "ridge", **again)
    views, rows = 2, len(stored.shapes["spots"])
    assert 0 < first < views * rows
    canaries = encoded.count(1)  # one picture of a run is no row
    assert sum(encoded) - canaries <= views * rows + journal.ROWS


def test_a_damaged_model_in_the_journal_is_fitted_again(stored, spy, how, whole):
    expected = whole("spy")
    with killed_after(8):
        sqi.tl.predict(stored, "spy", resume=True, **how["spy"])
    (folder,) = journals(stored)
    weights = next((folder / "model-fold-0").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    sqi.tl.predict(stored, "spy", resume=True, **how["spy"])
    same(stored.tables["imputed"], expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"genes": ["NUC1", "GLD1"]}, "genes was"),
        ({"plan": sqi.Plan(seed=5)}, "plan.seed was 0, is 5"),
        ({"n_folds": 4}, "n_folds was 3, is 4"),
        ({"config": {"size_px": 9}}, "config.size_px was 8, is 9"),
        ({"unit": "log1p_counts"}, "unit was 'log1p_cp10k', is 'log1p_counts'"),
    ],
    ids=["genes", "seed", "folds", "config", "unit"],
)
def test_another_run_of_the_same_name_is_refused(begun, spy, how, digest, change, said):
    kept, before, fits = shards(begun), digest(begun), len(spy.fits)
    with pytest.raises(sqi.BadInput) as refused:
        sqi.tl.predict(begun, "spy", resume=True, **{**how["spy"], **change})
    assert said in str(refused.value) and "delete the folder" in str(refused.value)
    assert (shards(begun), digest(begun), len(spy.fits)) == (kept, before, fits)


def shift_counts(sdata) -> None:
    table = sdata.tables["table"]
    table.X = table.X + table.X  # the same spots, other counts


def name_patient(sdata) -> None:
    sdata.tables["table"].obs["patient"] = "another"


def dim_image(sdata) -> None:
    image = sdata.images["he"]
    level = next(iter(image["scale0"].ds.values())) if hasattr(image, "children") else image
    parsed = spatialdata.models.Image2DModel.parse(
        (level.data // 2),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        transformations=spatialdata.transformations.get_transformation(image, get_all=True),
    )
    del sdata.images["he"]
    sdata.images["he"] = parsed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shift_counts, "targets.0.measured was"),
        (dim_image, "targets.0.image was"),
        (name_patient, "targets.0.group was 'P1', is 'another'"),
    ],
    ids=["counts", "image", "patient"],
)
def test_other_counts_or_another_image_are_another_run(begun, spy, how, change, said):
    change(begun)
    with pytest.raises(sqi.BadInput, match=said):
        sqi.tl.predict(begun, "spy", resume=True, **how["spy"])


@pytest.mark.parametrize(("by", "goes_on"), [(1e-9, True), (1.0, False)], ids=["rounding", "a pixel"])
def test_spots_that_only_rounding_moved_are_those_of_the_run(begun, spy, how, by, goes_on):
    begun.shapes["spots"]["geometry"] = begun.shapes["spots"].geometry.translate(by, by)
    if goes_on:
        sqi.tl.predict(begun, "spy", resume=True, **how["spy"])
        return
    with pytest.raises(sqi.BadInput, match="targets.0.places differs"):
        sqi.tl.predict(begun, "spy", resume=True, **how["spy"])


def test_a_run_that_is_not_to_be_resumed_leaves_nothing_on_the_way(stored, spy, how):
    seen = []
    from sq_imputer.runs import carry_out

    track = carry_out.track
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carry_out, "track", lambda *a, **k: seen.append(journals(stored)) or track(*a, **k))
        sqi.tl.predict(stored, "spy", **how["spy"])
    assert seen == [[]] and not journals(stored)


def test_an_object_in_memory_has_no_place_for_a_journal(section, spy, how):
    with pytest.raises(sqi.BadInput, match="in memory only. Write it to a store .* or leave out resume= and client="):
        sqi.tl.predict(section, "spy", resume=True, **how["spy"])
    assert not spy.fits


@pytest.mark.parametrize("model", MODELS)
def test_a_result_that_cannot_be_written_is_not_computed_again(stored, spy, how, monkeypatch, model):
    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sqi.tl.predict(stored, model, resume=True, **how[model])
    computed = []
    parts = Journal.parts
    monkeypatch.setattr(
        Journal,
        "parts",
        lambda self, name, order, compute: parts(self, name, order, lambda rows: computed.append(rows)),
    )
    monkeypatch.setattr(sqi.Predictor, "fit", lambda *_: computed.append("fit"))
    sqi.tl.predict(spatialdata.read_zarr(stored.path), model, resume=True, **how[model])
    assert not computed


def test_a_process_that_is_killed_goes_on(stored, how, whole):
    expected = whole("spy")
    processes = multiprocessing.get_context("spawn")  # a fork may wait for ever for a lock that another thread held
    begun = processes.Event()
    process = processes.Process(target=predict_slowly, args=(stored.path, how["spy"], begun), daemon=True)
    process.start()
    assert begun.wait(300)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert journals(stored) and not (stored.path / "tables/imputed").exists()
    sqi.tl.predict(stored, "spy", resume=True, **how["spy"])
    same(spatialdata.read_zarr(stored.path).tables["imputed"], expected)


# Out of memory ------------------------------------------------------------------------------------


def test_a_device_that_is_out_of_memory_gets_smaller_batches_and_the_result_is_the_same(section, spy, how, monkeypatch):
    sqi.tl.predict(section, "spy", key_added="plain", **how["spy"])
    step, sizes = spy.predict_step, []

    def small_card(self, batch):
        sizes.append(len(batch))
        if len(batch) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, batch)

    monkeypatch.setattr(spy, "predict_step", small_card)
    with pytest.warns(RuntimeWarning, match="out of memory") as said:
        sqi.tl.predict(section, "spy", **how["spy"])
    assert sum("out of memory" in str(one.message) for one in said) == 1
    assert max(sizes[sizes.index(max(filter((5).__ge__, sizes))) :]) <= 5  # what fitted once is kept, over all folds
    for name in ("spy", "spy_std"):
        np.testing.assert_allclose(
            section.tables["imputed"].layers[name], section.tables["plain"].layers[name], atol=1e-5
        )
    assert section.tables["imputed"].uns["sq_imputer"]["spy"]["batch_size"] == max(filter((5).__ge__, sizes))


# Ctrl-C -------------------------------------------------------------------------------------------


# where Ctrl-C comes: what is called then, how many times it was before, and whether it is heard once the table is there
MOMENTS = {
    "fitting": (Spy, "optimize", 0, False),
    "predicting": (Spy, "predict_step", 1, False),
    "before the table is written": (write, "commit_whole", 0, False),
    "written beside the store": (store, "flush", 0, False),
    "taking its place": (store, "_put_in", 0, True),
    "in its place, not listed": (store, "_consolidate", 0, True),
}


@contextmanager
def ctrl_c_at(place, name: str, times: int):
    """Lets something be called some times and presses Ctrl-C as it is called again."""
    left, function = [times], getattr(place, name)

    def interrupted(*args, **kwargs):
        left[0] -= 1
        if left[0] == -1:
            signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are told to ignore it
    try:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(place, name, interrupted)
            yield
    finally:
        signal.signal(signal.SIGINT, heard)
    assert left[0] < 0, f"{name} was called {times - left[0]} times"


@pytest.mark.parametrize("resume", [False, True], ids=["at once", "resume"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_the_store_as_it_was_or_with_the_whole_table(stored, how, whole, digest, moment, resume):
    *where, there = MOMENTS[moment]
    before, sdata = digest(stored), spatialdata.read_zarr(stored.path)
    with ctrl_c_at(*where):
        sqi.tl.predict(sdata, "spy", resume=resume, **how["spy"])
    read = spatialdata.read_zarr(stored.path)
    assert ("imputed" in read.tables) == there
    assert set(sdata.tables) <= set(read.tables) and digest(read, without=["imputed"]) == before
    left = [path.name for path in stored.path.parent.iterdir() if path != stored.path]
    assert all(name.endswith(".run") for name in left) and bool(left) <= resume, left
    if there:
        same(read.tables["imputed"], whole("spy"))


# Elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backed", [False, True])
def test_the_result_may_go_to_a_store_of_its_own(stored, section, spy, how, digest, tmp_path, backed):
    sdata = stored if backed else section
    before, files = digest(sdata), sorted(stored.path.rglob("*"))
    sqi.tl.predict(sdata, "spy", output_path=tmp_path / "result.zarr", **how["spy"])
    result = spatialdata.read_zarr(tmp_path / "result.zarr")
    assert list(result.tables) == ["imputed"] and list(result.shapes) == ["spots"]
    same(result.tables["imputed"], sdata.tables["imputed"])
    assert digest(sdata, without=("imputed",)) == before
    assert sorted(stored.path.rglob("*")) == files


def test_a_second_model_beside_a_first_goes_elsewhere_as_well(stored, spy, how, tmp_path):
    sqi.tl.predict(stored, "spy", **how["spy"])
    sqi.tl.predict(stored, "spy", layer_added="again", output_path=tmp_path / "result.zarr", **how["spy"])
    result = spatialdata.read_zarr(tmp_path / "result.zarr").tables["imputed"]
    assert {"spy", "again"} <= set(result.layers) and {"spy", "again"} <= set(stored.tables["imputed"].layers)
    assert "again" not in spatialdata.read_zarr(stored.path).tables["imputed"].layers


def test_a_result_that_cannot_be_written_elsewhere_is_in_memory(section, spy, how, tmp_path, monkeypatch):
    def full(*_, **__):
        raise sqi.StoreError("the disk is full.")

    monkeypatch.setattr(store, "create", full)
    with pytest.raises(sqi.StoreError, match=r"The result is in memory, as sdata.tables\['imputed'\]"):
        sqi.tl.predict(section, "spy", output_path=tmp_path / "result.zarr", **how["spy"])
    assert "spy" in section.tables["imputed"].layers


def test_ctrl_c_while_a_result_is_written_elsewhere_leaves_the_object(section, spy, how, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sqi.tl.predict(section, "spy", output_path=tmp_path / "result.zarr", **how["spy"])
    assert "imputed" not in section.tables


def test_a_path_that_is_taken_is_refused_before_any_model_runs(section, spy, how, tmp_path):
    (tmp_path / "result.zarr").mkdir()
    with pytest.raises(sqi.BadInput, match="result.zarr' exists, and nothing is written over it"):
        sqi.tl.predict(section, "spy", output_path=tmp_path / "result.zarr", **how["spy"])
    assert not spy.fits


def test_a_run_may_be_resumed_beside_its_new_store(section, spy, how, tmp_path):
    where = {"output_path": tmp_path / "result.zarr", "resume": True}
    with killed_after(8):
        sqi.tl.predict(section, "spy", **where, **how["spy"])
    assert [path.name for path in tmp_path.iterdir()] == [".result.zarr.imputed.spy.run"]
    fits = len(spy.fits)
    sqi.tl.predict(section, "spy", **where, **how["spy"])
    assert len(spy.fits) < fits + 3
    assert [path.name for path in tmp_path.iterdir()] == ["result.zarr"]


def test_too_little_space_is_found_before_any_model_runs(stored, spy, how, monkeypatch):
    free = shutil.disk_usage(stored.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=1_000))
    with pytest.raises(sqi.StoreError, match="not enough space .* are needed, 0.0 MB are free.* output_path="):
        sqi.tl.predict(stored, "spy", **how["spy"])
    assert not spy.fits and "imputed" not in stored.tables


@pytest.mark.parametrize("model", ["spy", "ridge"])
def test_the_estimate_of_space_is_what_is_written(stored, spy, how, monkeypatch, model):
    asked = []
    check = write.check_free
    monkeypatch.setattr(write, "check_free", lambda *a, nbytes=0, **k: asked.append(nbytes) or check(*a, **k))
    sqi.tl.predict(stored, model, **how[model])
    table = stored.tables["imputed"]
    features = [table.obsm[name] for name in table.obsm if name.startswith("X_")]
    held = sum(part.nbytes for part in [table.X, *(table.layers[name] for name in ("measured", model, f"{model}_std"))])
    assert max(asked) == held + sum(part.nbytes for part in features)
