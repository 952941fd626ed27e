"""What goes together, and what has been seen, is checked before anything is computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import spatialdata
from scipy.spatial import cKDTree
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale, Sequence, Translation, get_transformation, set_transformation

import sq_imputer as sqi
from sq_imputer.runs.checks import check_leave_out, warn_of_little
from sq_imputer.runs.decide import Decision, by_own_spots
from sq_imputer.runs.targets import read_targets
from sq_imputer.section.slide import Slide


def test_what_is_left_out_is_known_and_goes_with_the_objects_own_spots():
    check_leave_out(None, object())
    with pytest.raises(sqi.BadInput, match="leave_out is 'cell'; expected one of 'patient', 'section', 'block'"):
        check_leave_out("cell", None)
    with pytest.raises(sqi.BadInput, match="leave_out is 'block', but reference says"):
        check_leave_out("block", object())


def test_a_number_of_genes_said_outright_is_not_left_out(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, n_folds=3, buffer_um=50.0)
    for number in (249, 250):
        with pytest.raises(sqi.BadInput, match="holds another panel or unit"):
            sqi.tl.predict(section, "spy", genes=number, layer_added="again", n_folds=3, buffer_um=50.0)
    sqi.tl.predict(section, "spy", layer_added="again", n_folds=3, buffer_um=50.0)
    assert list(section.tables["imputed"].var_names) == genes


def test_a_model_that_retrieves_needs_leave_for_other_sections_of_the_patient(joined, recalls, genes):
    joined.tables["table"].obs["patient"] = "A"
    with pytest.raises(sqi.BadInput, match="allow_same_patient=True"):
        sqi.tl.predict(joined, "recalls", sections="region", leave_out="section", genes=genes)


def test_shapes_that_the_store_lacks_are_named(stored, spy, genes):
    stored.shapes["cells"] = stored.shapes["spots"].copy()
    with pytest.warns(UserWarning, match="shapes 'cells' are in memory only.*write_element.'cells'."):
        sqi.tl.predict(stored, "spy", genes=genes, shapes_key="cells", key_added="cells_imputed")


# No spot is predicted by a model that was fitted on it ---------------------------------------------


def renamed(sdata):
    sdata.tables["table"].obs["patient"] = "another"
    sdata.attrs |= {"patient": "another", "section": "another"}
    return sdata


def cropped(sdata):
    """A quarter of the section, under another patient's name."""
    box = {"min_coordinate": [0, 0], "max_coordinate": [400, 400], "target_coordinate_system": "global"}
    return renamed(spatialdata.bounding_box_query(sdata, axes=("x", "y"), **box))


def filtered(sdata):
    table = sdata.tables["table"]
    sdata.tables["table"] = table[:, sorted(table.var_names)[5:]].copy()
    return renamed(sdata)


def coarser(sdata):
    pixels = np.asarray(Slide.from_sdata(sdata).frame.pyramid.levels[0])[:, ::2, ::2]
    image, scale = sdata.images["he"], Scale([2, 2], ("x", "y"))
    places = {name: Sequence([scale, place]) for name, place in get_transformation(image, get_all=True).items()}
    sdata.images["he"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=list("rgb"), transformations=places)
    return renamed(sdata)


def moved(by):
    def move(sdata):
        spots = sdata.shapes["spots"]
        spots["geometry"] = spots.geometry.affine_transform([1, 0, 0, 1, *np.broadcast_to(by, 2)])
        return renamed(sdata)

    return move


def shifted(sdata):
    """The whole section, image and all, lies elsewhere in its system."""
    for element in (sdata.images["he"], sdata.shapes["spots"]):
        for name, place in get_transformation(element, get_all=True).items():
            set_transformation(element, Sequence([place, Translation([5000.3, 70.1], ("x", "y"))]), name)
    return renamed(sdata)


CHANGES = {
    "as it is": renamed,
    "a crop": cropped,
    "genes filtered": filtered,
    "half resolution": coarser,
    "moved by 1e-9 px": moved(1e-9),
    "another system": shifted,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("way", ["fitted", "reference"])
def test_a_spot_that_was_fitted_on_is_known_again(section, spy, genes, change, way):
    copy = change(spatialdata.deepcopy(section))
    given = {"model": "spy", "reference": section, "genes": genes} if way == "reference" else {}
    given = given or {"model": sqi.tl.fit(section, "spy", genes=genes)}
    with pytest.raises(sqi.BadInput, match="the very section to be predicted.*would be a training fit.*out of fold"):
        sqi.tl.predict(copy, **given)
    assert "imputed" not in copy.tables


def test_a_model_from_a_folder_knows_a_section_that_was_saved_again(stored, spy, genes, tmp_path):
    sqi.tl.fit(stored, "spy", genes=genes).save(tmp_path / "model")
    renamed(stored).write(tmp_path / "again.zarr")
    with pytest.raises(sqi.BadInput, match="the very section to be predicted"):
        sqi.tl.predict(spatialdata.read_zarr(tmp_path / "again.zarr"), tmp_path / "model")


def test_a_section_that_was_fitted_on_in_part_is_refused_and_its_other_spots_are_not(section, spy, genes):
    model = sqi.tl.fit(cropped(spatialdata.deepcopy(section)), "spy", genes=genes)
    [rows] = model.training_rows
    with pytest.raises(
        sqi.BadInput, match=rf"{len(rows)} of \d+ measured spots of section .* training spots .of 'another'"
    ):
        sqi.tl.predict(section, model)
    table = section.tables["table"]
    first = spatialdata.deepcopy(cropped(section)).tables["table"].obs_names
    section.tables["table"] = table[~table.obs_names.isin(first)].copy()
    sqi.tl.predict(section, model)
    assert section.tables["imputed"].obs["measured"].sum() == table.n_obs - len(rows)


def test_another_section_on_the_same_lattice_is_predicted(patients, spy, genes):
    model = sqi.tl.fit(patients["P1"], "spy", genes=genes)
    one, other = (Slide.from_sdata(patients[name]).xy_um for name in ("P1", "P2"))
    assert (cKDTree(one).query(other)[0] < 1e-6).mean() > 0.8
    sqi.tl.predict(patients["P2"], model)
    assert patients["P2"].tables["imputed"].obs["measured"].any()


def few(slides, n):
    return [replace(slide, measured=np.arange(len(slide)) < n) for slide in slides]


def test_sections_that_leave_nearly_nothing_say_so(joined, genes):
    targets = read_targets(joined, "region", None, {})
    slides = few(targets.slides, 4)
    decision = by_own_spots(
        replace(targets, slides=tuple(slides)), slides, leave_out="section", n_folds=3, buffer_um=50.0
    )
    with pytest.warns(UserWarning, match="'without-0' is fitted on 8 measured rows of sections 'spots-P2', 'spots-P3'"):
        warn_of_little(decision, slides, genes, None)


def test_a_reference_of_a_few_rows_says_so_before_it_is_fitted(patients, spy, genes):
    target, other = patients["P1"], patients["P2"]
    other.tables["table"] = other.tables["table"][:6].copy()
    with pytest.warns(UserWarning, match="fitted on 6 measured rows of sections 'P2'.*says little"):
        sqi.tl.predict(target, "spy", reference=other, genes=genes)


def test_a_buffer_that_leaves_a_fold_little_is_said_with_the_way_out(joined, genes):
    slides = read_targets(joined, "region", None, {}).slides
    decision = Decision({"fold-0": [(0, np.arange(30))], "fold-1": [(0, np.arange(11))]})
    with pytest.warns(UserWarning, match="'fold-1' .* is fitted on 11 of 59 measured rows.*buffer_um, or more folds"):
        warn_of_little(decision, slides, genes, genes)


def test_a_panel_of_next_to_nothing_is_said_where_more_was_asked_for(section, spy, genes):
    section.tables["table"] = section.tables["table"][:, genes[:3]].copy()
    how = {"n_folds": 3, "buffer_um": 50.0}
    with pytest.warns(UserWarning, match="give a panel of 3 genes .* where more were asked for"):
        sqi.tl.predict(section, "spy", **how)
    sqi.tl.predict(section, "spy", genes=genes[:3], overwrite=True, **how)  # named: that is what is wanted
