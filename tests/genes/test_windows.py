"""Genes as a source of rows: batches of windows, one source per chromosome, a model fitted on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

import sq_imputer as sqi
from sq_imputer import GeneWindows, Needs
from sq_imputer.genes.genome import Genome
from sq_imputer.genes.prompts import text_of
from sq_imputer.nn.bases import composition, one_hot
from sq_imputer.predictor.registry import ModelCard

CHROMS = {f"chr{k + 1}": "".join(np.random.default_rng(k).choice(list("ACGT"), 4000)) for k in range(4)}
SIGNAL = {name: np.random.default_rng(9).random(4000) for name in CHROMS}


def table(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    chroms, strands = rng.choice(list(CHROMS), n), rng.choice(["+", "-"], n)
    places = {"chrom": chroms, "tss": rng.integers(0, 4000, n), "strand": strands}
    return pd.DataFrame({**places, "y": rng.normal(size=n)}, index=[f"G{k}" for k in range(n)])


def windows(**further) -> GeneWindows:
    return GeneWindows.from_table(table(), CHROMS, **{"length": 64, **further})


def test_a_source_of_genes_is_a_source():
    found = windows()
    assert isinstance(found, sqi.Source) and len(found) == 60 and found.genes == ("y",)
    assert found.measured.all() and found.section == found.group == "4 chromosomes"
    assert repr(found) == "GeneWindows '4 chromosomes': 60 windows of 64 bp, 60 measured in 1 contexts"
    assert found.all_features(Needs()).shape == (60, 0) and found.moments(Needs()) is None


def test_batches_have_the_windows_of_their_rows_in_any_order():
    found = windows(tracks={"a": SIGNAL, "b": SIGNAL}, extra=table()[["y", "tss"]])
    assert found.sizes == {"tracks": 2, "extra": 2}
    whole = sqi.Batch.cat(list(found.batches(Needs(sequence=64), 7)))
    assert whole.bases.shape == whole.allowed.shape == (60, 64) and whole.tracks.shape == (60, 64, 2)
    known = table()
    for batch in found.batches(Needs(sequence=64), 7, generator=np.random.default_rng(0)):
        for k, row in enumerate(batch.index.tolist()):
            window = found.cut.window(row, 64)
            assert (batch.bases[k].numpy() == window.bases).all() and (batch.tracks[k].numpy() == window.tracks).all()
            assert batch.expression[k].item() == np.float32(known["y"].iloc[row])
            assert batch.extra[k].tolist() == known[["y", "tss"]].iloc[row].to_numpy(np.float32).tolist()
    along = whole.xy_um[:, 1] * 1e5 + whole.xy_um[:, 0]
    assert (along.diff() >= 0).all() and sorted(whole.index.tolist()) == list(range(60))
    some = next(found.batches(Needs(sequence=64), 9, rows=[5, 3]))
    assert sorted(some.index.tolist()) == [3, 5]


def test_nothing_is_read_before_a_batch_is_asked_for_and_then_its_rows_alone(monkeypatch):
    read = []
    whole = Genome.read
    monkeypatch.setattr(Genome, "read", lambda self, *where: read.append(where) or whole(self, *where))
    parts = windows(tracks={"a": SIGNAL}).by_chromosome()
    batches = parts[0].batches(Needs(sequence=64), 4)
    assert not read
    next(batches)
    assert len(read) == 4


def test_a_model_may_see_less_than_a_window_and_never_more():
    found = windows()
    narrow, wide = (next(found.batches(Needs(sequence=n), 60)) for n in (10, 64))
    assert torch.equal(narrow.bases, wide.bases[:, 32 - 5 : 32 + 5])
    with pytest.raises(sqi.BadInput, match="reads 65 bp, and the windows have 64. Make them with length=65"):
        next(found.batches(Needs(sequence=65)))
    with pytest.raises(sqi.BadInput, match="asks for no DNA"):
        next(found.batches(Needs()))


def test_there_is_a_source_per_chromosome():
    parts = windows().by_chromosome()
    assert sorted(part.section for part in parts) == list(CHROMS) and sum(map(len, parts)) == 60
    for part in parts:
        assert part.section == part.group and len({part.fingerprint for part in parts}) == 4
        assert set(table().loc[part.names, "chrom"]) == {part.section}
        assert (part.expression[:, 0] == table().loc[part.names, "y"].to_numpy(np.float32)).all()


def test_chromosomes_are_dealt_into_parts():
    parts = windows().by_chromosome(2)
    assert [part.section for part in parts] == ["part 1 of 2", "part 2 of 2"]
    held = [set(part.cut.labels.tolist()) for part in parts]
    assert not held[0] & held[1] and held[0] | held[1] == set(CHROMS)
    many = GeneWindows.from_sequences(["ACGT"] * 999, group=[str(k // 3) for k in range(999)]).by_chromosome(5)
    assert sum(map(len, many)) == 999 and all(set(np.unique(p.cut.labels, return_counts=True)[1]) == {3} for p in many)


def test_provenance_says_what_was_read(tmp_path):
    table().iloc[:1].assign(start=3, end=9)[["chrom", "start", "end"]].to_csv(
        tmp_path / "cuts.tsv", sep="\t", header=False, index=False
    )
    with pytest.warns(UserWarning, match=r"track 'cuts' has nothing on 'chr.', .*: it is 0 for \d\d of 60 genes"):
        found = windows(tracks={"cuts": tmp_path / "cuts.tsv"}, normalize="cpm", strand="reverse_complement").provenance
    assert found["length"] == 64 and found["genes"] == 60 and found["strand"] == "reverse_complement"
    assert found["genome"]["bases"] == 16_000 and found["genome"]["build"] == "" and found["blacklist"] is None
    (track,) = found["tracks"]
    assert track["path"] == str(tmp_path / "cuts.tsv") and track["divisor"] == 2e-6 and track["normalize"] == "cpm"
    with pytest.warns(UserWarning, match="track 'cuts.tsv' has nothing on"):
        (alone,) = windows(tracks=[tmp_path / "cuts.tsv"], normalize={"cuts.tsv": "cpm"}).cut.signals
    assert alone.name == "cuts.tsv" and alone.divisor == 2e-6
    assert GeneWindows.from_sequences(["A", "C"]).provenance["sequences"] == 2


def test_sequences_at_hand_are_windows():
    found = GeneWindows.from_sequences(["ACGT", "GG", "TTTTTT"], [1.0, 2.0, np.nan], group=["a", "b", "a"])
    assert found.length == 6 and found.measured.tolist() == [True, True, False]
    assert [part.names.tolist() for part in found.by_chromosome()] == [["0", "2"], ["1"]]
    batch = next(found.batches(Needs(sequence=6)))
    assert one_hot(batch.bases)[1].sum(dim=0).tolist() == [0, 0, 2, 0]
    assert batch.allowed.sum(dim=1).tolist() == [4, 2, 6]


def test_the_fingerprint_knows_the_genome_the_targets_and_the_length():
    other = CHROMS | {"chr1": "G" + CHROMS["chr1"][1:]}
    made = [
        windows(),
        windows(length=32),
        windows(strand="reverse_complement"),
        windows(tracks={"a": SIGNAL}),
        windows(extra=table()[["y"]]),
        GeneWindows.from_table(table(), other, length=64),
        GeneWindows.from_table(table().assign(y=0.0), CHROMS, length=64),
    ]
    assert len({one.fingerprint for one in made}) == len(made) and windows().fingerprint == made[0].fingerprint


def test_parts_that_do_not_fit_are_said():
    with pytest.raises(sqi.BadInput, match="strand is 'both'; expected 'keep' or 'reverse_complement'"):
        windows(strand="both")
    unknown = table().assign(strand=".")
    with pytest.raises(sqi.BadInput, match=r"60 of 60 genes have no strand \('.'\), .*pass strand='keep'"):
        GeneWindows.from_table(unknown, CHROMS, length=64, strand="reverse_complement")
    with pytest.raises(sqi.BadInput, match="tracks is 'a.bw'; expected a list of paths"):
        windows(tracks="a.bw")
    with pytest.raises(sqi.BadInput, match="normalize names 'b', and the tracks are 'a'"):
        windows(tracks={"a": SIGNAL}, normalize={"b": "cpm"})
    with pytest.raises(sqi.BadInput, match="extra lacks 1 of 60 genes: 'G59'"):
        windows(extra=table().iloc[:59][["y"]])
    with pytest.raises(sqi.BadInput, match="extra is a list"):
        windows(extra=[1])
    with pytest.raises(sqi.BadInput, match="extra has values that are NaN"):
        windows(extra=table()[["y"]] * np.nan)
    with pytest.raises(sqi.BadInput, match="length is 0"):
        windows(length=0)
    with pytest.raises(sqi.BadInput, match="1 names of 2 windows"):
        GeneWindows.from_sequences(["A", "C"], names=["a"])
    with pytest.raises(sqi.BadInput, match="expression has 2 columns, and names are 'expression'"):
        GeneWindows.from_sequences(["A", "C"], np.zeros((2, 2)))
    with pytest.raises(sqi.BadInput, match=r"expression is \(3, 1\) of 2 windows"):
        GeneWindows.from_sequences(["A", "C"], np.zeros(3))
    with pytest.raises(sqi.BadInput, match="expression is not made of numbers"):
        GeneWindows.from_sequences(["A", "C"], ["a", "b"])
    with pytest.raises(sqi.BadInput, match="some are empty"):
        GeneWindows.from_sequences(["A", ""])
    with pytest.raises(sqi.BadInput, match="group has 1 labels of 2 sequences"):
        GeneWindows.from_sequences(["A", "C"], group=["a"])


# A model of the gene axis ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    length: int = 64
    lr: float = 0.05
    weight_decay: float = 0.0
    epochs: int = 60
    batch_size: int = 32
    validation: float = 0.0
    calibration: int = 2


class Content(sqi.Predictor):
    """Expression by the content of the window: linear in few numbers."""

    card = ModelCard("content", "Linear in composition.", "none", "none", "none", "none", uncertainty="measured")
    Config = Config

    @property
    def needs(self) -> Needs:
        return Needs(sequence=self.config.length)

    def build(self) -> None:
        self.line = torch.nn.Linear(6 + self.sizes["tracks"] + self.sizes["extra"], len(self.genes))

    def _said(self, batch):
        further = [batch.tracks.mean(dim=1)] if self.sizes["tracks"] else []
        further += [batch.extra] if self.sizes["extra"] else []
        return self.line(torch.cat([composition(batch.bases), *further], dim=1))

    def loss(self, batch):
        return {"mse": (self._said(batch) - batch.expression).square().mean()}

    def predict_step(self, batch):
        mean = self._said(batch)
        return sqi.Prediction(mean, std=torch.ones_like(mean), embedding=composition(batch.bases))


def planted(n: int = 240, **further) -> GeneWindows:
    """Genes whose expression is the signal at their start, give or take a tenth."""
    rng = np.random.default_rng(3)
    found = table(n)
    signal = {name: np.repeat(rng.random(40), 100) for name in CHROMS}
    made = GeneWindows.from_table(found, CHROMS, length=64, tracks={"a": signal}, **further)
    tracks = sqi.Batch.cat([replace(batch) for batch in made.batches(Needs(sequence=64))])
    order = torch.argsort(tracks.index)
    y = tracks.tracks[order].mean(dim=(1, 2)).numpy() + 0.05 * rng.standard_normal(n)
    return replace(made, expression=y[:, None].astype(np.float32))


def test_a_model_is_fitted_saved_and_asked_by_chromosome(tmp_path):
    parts = planted().by_chromosome()
    model = Content().fit(parts[:3])
    assert model.sizes == {"rows": sum(map(len, parts[:3])), "features": 0, "tracks": 1, "extra": 0}
    assert model.provenance["sections"] == sorted(part.section for part in parts[:3])
    assert model.provenance["windows"]["tracks"][0]["name"] == "a"
    assert sorted(sum(model.provenance["row_names"], [])) == sorted(name for p in parts[:3] for name in p.names)
    assert model.provenance["ood_from"] == "left-out individuals" and model.history["calibration"]["folds"] == 2
    said = model.predict(parts[3])
    error = said.mean[:, 0].numpy() - parts[3].expression[:, 0]
    assert np.corrcoef(said.mean[:, 0], parts[3].expression[:, 0])[0, 1] > 0.9
    assert 0.5 < (error / said.std[:, 0].numpy()).std() < 2
    bare = GeneWindows.from_table(
        table(240), CHROMS, length=64, target=(), tracks={"a": parts[3].cut.signals[0].signal.parts}
    )
    assert bare.expression is None and not bare.measured.any()
    rows = [bare.names.tolist().index(name) for name in parts[3].names]
    assert torch.allclose(model.predict(bare, rows=rows).mean, said.mean, atol=1e-5)
    model.save(tmp_path / "model")
    loaded = Content.load(tmp_path / "model")
    assert torch.equal(loaded.predict(parts[3]).mean, said.mean) and loaded.sizes == model.sizes
    shuffled = replace(planted(), expression=np.random.default_rng(0).permutation(planted().expression)).by_chromosome()
    blind = Content().fit(shuffled[:3]).predict(shuffled[3])
    assert abs(np.corrcoef(blind.mean[:, 0], shuffled[3].expression[:, 0])[0, 1]) < 0.3


def test_streamed_and_held_rows_train_the_same_model():
    parts = planted(60).by_chromosome()
    plan = {"epochs": 3, "calibration": 0}
    held, streamed = (Content().fit(parts[:1], sqi.Plan(**plan, memory_mb=size)) for size in (2048, 0))
    assert torch.allclose(held.predict(parts[1]).mean, streamed.predict(parts[1]).mean, atol=1e-5)


def test_unlike_windows_are_said_to_be():
    parts = planted().by_chromosome()
    model = Content(Config(epochs=1, calibration=0)).fit(parts[:3])
    usual = model.predict(parts[3]).ood
    strange = model.applicability(composition(one_rows("CG" * 32, "A" * 64), torch.full((2, 64, 1), 0.5)))
    assert usual.median() < 0.8 and (strange > 0.99).all()


def one_rows(*letters: str) -> torch.Tensor:
    found = GeneWindows.from_sequences(letters)
    return next(found.batches(Needs(sequence=64))).bases


def test_buffers_keep_windows_of_one_chromosome_apart():
    """Errors within a chromosome are measured on genes whose windows share no base with those of the fit."""
    from sq_imputer.predictor.calibrate import _parts

    (part,) = planted(240)[np.flatnonzero(planted(240).cut.chroms == "chr1")].by_chromosome()
    tss = part.cut.tss
    for (train,), (test,) in _parts([part], 3, 64.0):
        assert np.abs(tss[train][:, None] - tss[test][None]).min() > 64 and test.any()


def test_images_and_dna_are_not_mistaken(toy_slides):
    parts = planted(60).by_chromosome()
    with pytest.raises(sqi.BadInput, match="'ridge' reads images, and the rows of 'chr.' are windows of DNA"):
        sqi.get_model("ridge")().fit(parts)
    with pytest.raises(sqi.BadInput, match="'content' reads DNA, and the rows of .* are no windows of it"):
        Content().fit(toy_slides)
    with pytest.raises(sqi.BadInput, match="no windows of it. Give it sq_imputer.GeneWindows"):
        Content(Config(epochs=1, calibration=0)).fit(parts).predict(toy_slides[0])
    bare = GeneWindows.from_table(table(), CHROMS, length=64)
    with pytest.raises(sqi.BadInput, match=r"other numbers of 'tracks \(0, expected 1\)'. Make them with the same"):
        Content(Config(epochs=1, calibration=0)).fit(parts).predict(bare)


def test_what_is_written_about_a_gene_comes_along_where_it_is_asked_for():
    found = windows()
    texts = {name: f"gene number {k}" for k, name in enumerate(found.names)}
    told = found.with_texts(texts)
    batch = next(told.batches(Needs(sequence=64, text=20), 9, rows=[5, 3]))
    assert [text_of(row) for row in batch.text.numpy()] == [texts[told.names[k]] for k in batch.index.tolist()]
    assert batch.bases.shape == (2, 64) and next(told.batches(Needs(sequence=64), 9)).text is None
    alone = next(told[[7, 2]].batches(Needs(text=6), 9))
    assert alone.bases is None and {text_of(row) for row in alone.text.numpy()} == {"gene n"}
    names = next(found.batches(Needs(text=20), 60))
    assert [text_of(row) for row in names.text.numpy()] == found.names[names.index.numpy()].tolist()
    assert told.fingerprint != found.fingerprint
    with pytest.raises(sqi.BadInput, match="texts has none of 59 of 60 genes"):
        found.with_texts({"G1": "one"})


def test_tracks_of_a_fit_are_those_it_is_asked_with():
    """As many of them in another order, or normalized otherwise, say something else."""
    signals = {"a": SIGNAL, "b": {name: 3 * part for name, part in SIGNAL.items()}}
    fit = windows(tracks=signals)
    model = Content(Config(epochs=1, calibration=0)).fit(fit.by_chromosome())
    model.predict(fit)
    for other in ({"tracks": dict(reversed(signals.items()))}, {"normalize": "p99"}, {"strand": "reverse_complement"}):
        with pytest.raises(sqi.BadInput, match="and those of the fit as 'strand keep', 'a .raw.', 'b .raw.'"):
            model.predict(windows(**{"tracks": signals, **other}))
    with pytest.raises(sqi.BadInput, match="in the same order, and normalize="):
        Content(Config(epochs=1)).fit([fit[:30], windows(tracks=signals, normalize="cpm")[30:]])
