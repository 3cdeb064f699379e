"""The picture of ROC curves: what its lines, titles and legends say."""

import dataclasses
import struct

import pytest
from evaluation_records import record

from divtf.reporting.figures import style
from divtf.reporting.figures.roc import roc_figure
from divtf.reporting.published import OUTPUTS


def curve(attack, score, images, auc, points):
    at = [{"false_alarms": 0.01, "tpr": 0.25}, {"false_alarms": 0.05, "tpr": 0.5}]
    return {"attack": attack, "score": score, "images": images, "auc": auc, "points": points, "at": at}


RESULTS = {
    "clean": {"images": 100, "right": None},
    "attacks": {"pgd": {"images": 20, "fooled": 8}, "evading_none": {"images": 20, "fooled": 0}},
    "curves": [
        curve("pgd", "disagreement", "all", 0.75, [[0.0, 0.25], [0.1, 0.5], [1.0, 1.0]]),
        curve("pgd", "one_minus_confidence", "all", 0.5, [[0.0, 0.0], [1.0, 1.0]]),
        curve("pgd", "disagreement", "fooled", 0.875, [[0.02, 0.5], [1.0, 1.0]]),
        curve("pgd", "one_minus_confidence", "fooled", 0.625, [[0.0, 0.125], [1.0, 1.0]]),
        curve("evading_none", "disagreement", "all", 0.25, [[0.0, 0.0], [1.0, 1.0]]),
    ],
}


def test_curves_of_images_that_fool():
    (band,) = roc_figure({"T_Div": RESULTS}).subfigs
    (axes,) = band.axes
    disagreement, confidence = [line for line in axes.get_lines() if line.get_drawstyle() == "steps-post"]
    assert axes.get_title() == "pgd: 8 images that fool"
    assert (list(disagreement.get_xdata()), list(disagreement.get_ydata())) == ([0.02, 1.0], [0.5, 1.0])
    # Half a clean image stands for none on the logarithmic axis.
    assert (axes.get_xscale(), axes.get_xlim()) == ("log", (0.005, 1.0))
    assert (list(confidence.get_xdata()), list(confidence.get_ydata())) == ([0.005, 1.0], [0.125, 1.0])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0.875", "0.625"]
    verticals = {line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"}
    assert verticals >= {0.01, 0.05}


def test_curves_of_all_images_and_several_targets():
    figure = roc_figure({"T_Base": RESULTS, "T_Div": RESULTS}, images="all")
    assert [band.get_suptitle() for band in figure.subfigs] == ["T_Base", "T_Div"]
    for band in figure.subfigs:
        assert [axes.get_title() for axes in band.axes] == [
            "pgd: 20 attacked images",
            "evading none: 20 attacked images",
        ]
        (legend,) = band.legends
        assert [text.get_text() for text in legend.get_texts()] == ["disagreement", "one minus confidence"]
        lines = [line.get_color() for axes in band.axes for line in axes.get_lines()[:1]]
        assert lines == [style.COLOURS[0]] * 2


def test_targets_without_such_images_are_left_out():
    none_fooled = RESULTS | {"curves": [c for c in RESULTS["curves"] if c["images"] == "all"]}
    figure = roc_figure({"T_Base": RESULTS, "T_Div": none_fooled})
    assert [band.get_suptitle() for band in figure.subfigs] == ["T_Base"]
    with pytest.raises(ValueError, match="Expected at least one ROC curve of images that fool"):
        roc_figure({"T_Div": none_fooled})
    with pytest.raises(ValueError, match="Expected images as one of"):
        roc_figure({"T_Div": RESULTS}, images="some")


def test_equal_pictures_have_equal_bytes():
    one, other = (style.png(roc_figure({"T_Div": RESULTS})) for _ in range(2))
    assert one == other
    assert min(struct.unpack(">II", one[16:24])) > 200


def test_a_failed_check_is_a_mark_at_the_title():
    detected = [record(name, [], detection=RESULTS) for name in ("T_Base", "T_Div")]
    detected[0] = dataclasses.replace(detected[0], checks=({"passed": False},))
    figure = OUTPUTS["roc.png"].make(detected, ())
    assert [band.get_suptitle() for band in figure.subfigs] == ["T_Base †, seed 0", "T_Div, seed 0"]
