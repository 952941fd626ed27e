"""The report of a benchmark: one file, all numbers, no network, and text that stays text."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

import sq_imputer as sqi
from sq_imputer import bench, cli, report
from sq_imputer.report._page import Page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A benchmark of made numbers: what the report shows is known."""
    folder = tmp_path_factory.mktemp("bench")
    sections = {f"S{k}": f"S{k}.zarr" for k in range(3)}
    config = bench.BenchConfig("hescape", sections, split={"train": ["S0"], "test": ["S1", "S2"]})
    config.write(folder / "config.yaml")
    first = {"protocol": "hescape", "shares_patient": False, "seed": 0, "n": 50}
    rows = []
    for k, case in enumerate(("S1", "S2")):
        who = {**first, "case": case, "section": case}
        for name in ("image to expression, section", "expression to image, section"):
            rows.append(
                {
                    **who,
                    "task": "retrieval",
                    "subject": "texture | <b>clip</b>",
                    "detail": name,
                    "gene": "",
                    "rank": -1,
                    "metric": "recall@5",
                    "value": 0.25 + 0.1 * k,
                    "chance": 0.1,
                }
            )
        for subject, value in (("mean", float("nan")), ("depth only", 0.2), ("texture | untuned", 0.4 + 0.02 * k)):
            for metric in ("pearson", "pearson_given_depth", "mse"):
                rows.append(
                    {
                        **who,
                        "task": "expression",
                        "subject": subject,
                        "detail": "ridge-pca128",
                        "gene": "G",
                        "rank": 0,
                        "metric": metric,
                        "value": value,
                        "chance": float("nan"),
                    }
                )
        rows.append(
            {
                **who,
                "task": "batch",
                "subject": "texture | untuned",
                "detail": "",
                "gene": "",
                "rank": -1,
                "metric": "section_probe",
                "value": 0.9,
                "chance": 0.5,
            }
        )
    pd.DataFrame(rows).to_parquet(folder / "results.parquet")
    pd.DataFrame(columns=["kind", "one", "other", "what", "n", "allowed", "case"]).to_csv(folder / "audit.csv")
    known = {"config": config.identity, "results_sha256": "abc", "versions": {"torch": "2.x"}}
    (folder / "provenance.json").write_text(json.dumps(known))
    return folder


def test_every_number_is_there_beside_its_chance(folder):
    text = report.bench(folder).read_text()
    for said in (
        "0.300 [0.250, 0.350] (0.100)",
        "0.410 [0.400, 0.420]",
        "ridge-pca128",
        "section_probe",
        "abc",
        "torch 2.x",
        "protocol: hescape",
        "no patient, section, counts or crop",
        "of new patients",
    ):
        assert said in text, said
    assert text.count("data:image/png;base64") == 2


def test_nothing_is_fetched_and_names_are_no_markup(folder):
    text = report.bench(folder).read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "<script" not in text
    assert "<b>clip" not in text and "&lt;b&gt;clip" in text


def test_a_page_escapes_all_that_it_is_given():
    page = Page("<i>t</i>")
    page.heading("<i>h</i>"), page.words("<i>w</i>"), page.listed(["<i>l</i>"]), page.code("<i>c</i>")
    page.table(pd.DataFrame({"<i>a</i>": ["<i>b</i>"]}))
    assert "<i>" not in page.html()


def test_a_folder_without_results_says_what_to_run(tmp_path, folder):
    with pytest.raises(sqi.MissingKey, match="sq-imputer bench run"):
        report.bench(tmp_path)


def test_the_command_line_lists_protocols_and_writes_reports(folder):
    run = CliRunner().invoke(cli.app, ["bench", "report", str(folder)])
    assert run.exit_code == 0 and "report.html" in run.output.replace("\n", "")
    run = CliRunner().invoke(cli.app, ["bench", "protocols"])
    assert run.exit_code == 0 and all(name in run.output.replace("\n", "") for name in ("hest", "replicate"))
