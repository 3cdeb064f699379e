"""The report of evaluations from records made by hand: every figure worked out here, or by SciPy."""

import dataclasses
import re
import statistics

import pytest
import scipy.stats
from evaluation_records import IMAGES, record, trial

from divtf.reporting.captions import NOISE_ALONE
from divtf.reporting.evaluation import (
    as_target_record,
    evaluation_markdown,
    evaluation_summaries,
    evaluation_text,
)
from divtf.storage.evaluations import QUERY, TRANSFER, WHITE_BOX
from divtf.storage.records import WORST_CASE, TransferResult, wilson_interval

EPSILONS = (0.1, 0.3)
FAILED = {"name": "gradients", "passed": False, "figure": 0.5, "sentence": "Half of them are zero."}
PASSED = {"name": "repeated", "passed": True, "figure": 0.0, "sentence": "They do not differ."}


def tries(fooled, epsilon=0.1):
    """The attacks of a small protocol, by what each fools: two on plain, one of them twice, and others."""
    told = {"epsilon": epsilon}
    square = {"attack": "square", "gradients": 0, "queries": 9, "settings": {"initial": 0.8}}
    first_four = fooled.get("square", set())
    taken = tuple(5 if number in first_four else 10 for number in range(4))
    return [
        trial(TRANSFER, fooled["fgsm"], surrogate="plain", attack="fgsm", gradients=1, settings={}, **told),
        trial(TRANSFER, fooled["pgd"], surrogate="plain", **told),
        trial(TRANSFER, fooled["again"], surrogate="plain", version=1, **told),
        trial(TRANSFER, fooled["other"], surrogate="other", **told),
        trial(WHITE_BOX, fooled["white"], tried=range(7), **told),
        trial(QUERY, first_four, tried=range(4), queries_taken=taken, **square, **told),
    ]


# Image 7 is wrong when clean, so that to fool it counts nowhere.
DIV = {"fgsm": {0, 7}, "pgd": {0, 1}, "again": {2}, "other": {1, 2, 7}, "white": {1, 3}, "square": {1}}
DIV_03 = {"fgsm": {0, 1}, "pgd": {2}, "again": {3}, "other": {4, 5, 6}, "white": {0, 1, 2}, "square": {0, 1}}
BASE = {"fgsm": {0, 1}, "pgd": {2}, "again": {3}, "other": {4}, "white": {0, 1, 2, 3, 4, 5}, "square": {0, 1}}
BASE_03 = {name: set(range(7)) for name in BASE} | {"square": set(range(4))}
SURROGATES = {"plain": {"seed": 1000, "clean accuracy": 0.875}, "other": {"seed": 1007, "model": "conv4"}}


def made(target, at, at_03, **told):
    values = {"wrong": [7], "epsilons": EPSILONS, "query_images": 4, "surrogates": SURROGATES}
    trials = told.pop("trials", tries(at) + tries(at_03, 0.3))
    return record(target, trials, **values | told)


def worst(target, hits):
    """What the run's own evaluation found on ten images."""
    return tuple(
        TransferResult(target, "S", WORST_CASE, e, h, 10) for e, h in zip(EPSILONS, hits, strict=True)
    )


RECORDS = [
    made("T_Div", DIV, DIV_03, paper=worst("T_Div", (9, 5))),
    made("T_Base", BASE, BASE_03, paper=worst("T_Base", (6, 1))),
]


def grids(records):
    """The tables of the report: for each a list of lines, each a list of cells."""
    found = []
    for block in evaluation_markdown(records).split("\n\n"):
        lines = [line.strip("|").split("|") for line in block.splitlines() if line.startswith("|")]
        if lines:
            found.append([[cell.strip() for cell in line] for line in lines if line[0].strip() != "---"])
    return found


def percent(right, total, mark=""):
    """A cell: accuracy and Wilson's interval by SciPy."""
    found = scipy.stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    return f"{100 * right / total:.1f}{mark} <sub>[{100 * found.low:.1f}-{100 * found.high:.1f}]</sub>"


def left(records=RECORDS):
    """(target, epsilon) -> the cells of its line."""
    head, *lines = grids(records)[0]
    return head, {(line[0], float(line[1])): line[2:] for line in lines}


def test_what_is_left_by_hand():
    head, lines = left()
    assert head == [
        *("target", "epsilon", "clean", "five attacks, one plain surrogate (the paper)", "transfer"),
        *("white box", "Square", "everything", "surrogate that hurts most"),
    ]
    # Of eight images seven are right. T_Div at 0.1: transfer fools 0, 1, 2; white box 1, 3; Square 1.
    expected = {
        ("T_Base", 0.1): [(7, 8), (6, 10), (2, 8), (1, 8), (2, 4), (1, 8), "plain (4)"],
        ("T_Base", 0.3): [(7, 8), (1, 10), (0, 8), (0, 8), (0, 4), (0, 8), "plain, other (7)"],
        ("T_Div", 0.1): [(7, 8), (9, 10), (4, 8), (5, 8), (3, 4), (3, 8), "plain (3)"],
        ("T_Div", 0.3): [(7, 8), (5, 10), (0, 8), (4, 8), (2, 4), (0, 8), "plain (4)"],
    }
    shown = {key: [*(percent(*cell) for cell in cells[:-1]), cells[-1]] for key, cells in expected.items()}
    assert lines == shown
    assert list(lines) == list(expected), "the paper's order"


def test_summary_is_what_everything_leaves_by_hand():
    failed = made("T_Base", BASE, BASE_03, checks=(FAILED,))
    other = dataclasses.replace(RECORDS[0], model="conv4")
    under = "on mnist, under everything that protocol strong tries, on 8 images: "
    assert evaluation_summaries([RECORDS[0], failed, other]) == [
        f"conv3 {under}T_Base 12.5† / 0.0†, T_Div 37.5 / 0.0",
        f"conv4 {under}T_Div 37.5 / 0.0",
    ]
    assert evaluation_summaries([]) == []


def test_a_protocol_that_was_changed_is_told_so():
    """Or a weak attacker would go by the name of a strong one."""
    weak = dataclasses.replace(RECORDS[0], changed={"surrogates": ("plain", "div"), "query_images": 9})
    called = "strong (changed: surrogates plain+div; query images 9)"
    assert weak.tried_by == called and RECORDS[0].tried_by == "strong"
    assert f"### conv3 on mnist, protocol {called}: what is left" in evaluation_markdown([weak])
    assert evaluation_text([weak]).startswith(f"conv3 on mnist, protocol {called}\n")
    assert f"under everything that protocol {called} tries" in evaluation_summaries([weak])[0]


def test_intervals_are_wilsons():
    """(p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n), of 4 in 8."""
    z, n, p = 1.959963984540054, 8, 0.5
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = ((p + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    assert wilson_interval(4, 8) == pytest.approx((low, high))
    assert f"[{100 * low:.1f}-{100 * high:.1f}]" in left()[1]["T_Div", 0.1][2]


@pytest.mark.parametrize("bad", ["T_Div", "T_Base"])
def test_every_figure_of_a_target_with_a_failed_check_is_marked_and_no_other(bad):
    records = [
        made(r.target, *values, paper=r.paper, checks=(PASSED, *([FAILED] if r.target == bad else [])))
        for r, values in zip(RECORDS, [(DIV, DIV_03), (BASE, BASE_03)], strict=True)
    ]
    head, lines = left(records)
    for (target, _), cells in lines.items():
        figures = cells[: head.index("surrogate that hurts most") - 2]
        assert len(figures) == 6
        assert ["†" in cell for cell in figures] == [target == bad] * 6
        assert all(re.fullmatch(r"[\d.]+†? <sub>\[[\d.-]+\]</sub>", cell) for cell in figures)
    assert left()[1] == {key: [cell.replace("†", "") for cell in cells] for key, cells in lines.items()}
    text = evaluation_markdown(records)
    assert "At epsilon 0.1 if no other is named. A target that fails one has † at its figures, or at" in text
    assert f"| {bad}, seed 0 | passed | what was found |" in text
    assert text.count("| gradients | **no** † | Half of them are zero. |") == 1
    assert text.count("| repeated | yes | They do not differ. |") == 2


@pytest.mark.parametrize("bad", ["T_Div", "T_Base"])
def test_the_mark_is_at_the_name_wherever_figures_of_it_stand(bad):
    """Of two seeds one fails a check: heads, lines of detection, gains and pairs name the target, marked."""
    curves = {"curves": [curve("pgd", "all", 0.5, 8, (2, 4))]}
    records = [
        made(name, *values, seed=seed, detection=curves, checks=[FAILED] if name == bad and seed else [])
        for name, values in {"T_Div": (DIV, DIV_03), "T_Base": (BASE, BASE_03)}.items()
        for seed in (0, 1)
    ]
    div, base = (f"{name} †" if name == bad else name for name in ("T_Div", "T_Base"))
    _, surrogates, attacks, *_, detection = grids(records)
    heads = [f"{div}: fooled, only by it", f"{base}: fooled, only by it"]
    assert surrogates[0][2:] == heads and attacks[0][5:] == heads
    assert [line[0] for line in detection[1:]] == [div, div, base, base]
    for text in (evaluation_markdown(records), " ".join(evaluation_text(records).split())):
        assert f"{div} over {base}, points at epsilon 0.1 / 0.3: clean +0.0" in text
        assert f"{div} over {base}, transfer, image by image: at epsilon 0.1 seed 0, +25.0 points" in text
        assert f"right where {base} is wrong 2 images" in text
        assert f"{div} over {base}, transfer, seed by seed" in text


def test_gains_by_the_papers_protocol_and_by_this_one_are_side_by_side():
    """From the counts of `test_what_is_left_by_hand`."""
    text = evaluation_markdown(RECORDS)
    assert (
        "- T_Div over T_Base, points at epsilon 0.1 / 0.3: clean +0.0, five attacks, one plain surrogate "
        "(the paper) +30.0 / +40.0, transfer +25.0 / +0.0, white box +50.0 / +50.0, Square +25.0 / +50.0, "
        "everything +25.0 / +0.0\n"
    ) in text
    assert NOISE_ALONE in text
    noise = made("T_Noise", BASE, BASE_03)
    with_noise = evaluation_markdown([*RECORDS, noise])
    # The paper's protocol was not tried on T_Noise.
    assert "T_Div over T_Noise, points at epsilon 0.1 / 0.3: clean +0.0, transfer" in with_noise
    assert NOISE_ALONE not in with_noise


def test_square_beyond_its_first_images_counts_in_everything_alone():
    """Images 5 and 6 withstood all else, and 5 falls to Square."""
    told = {"attack": "square", "gradients": 0, "queries": 9}
    more = trial(QUERY, {1, 5}, tried=[0, 1, 2, 3, 5, 6], queries_taken=(10, 5, 10, 10, 7, 10), **told)
    whole = made("T_Div", DIV, DIV_03)
    trials = [more if t.kind == QUERY and t.epsilon == 0.1 else t for t in whole.trials]
    asked = made("T_Div", DIV, DIV_03, trials=tuple(trials))
    (head, before), (_, after) = left([whole]), left([asked])
    at = "T_Div", 0.1
    square, everything = (head[2:].index(name) for name in ("Square", "everything"))
    assert after[at][square] == before[at][square] == percent(3, 4)
    assert (before[at][everything], after[at][everything]) == (percent(3, 8), percent(2, 8))
    explained = "Square was also asked for each other image that the target withstood under all else"
    assert explained in evaluation_markdown([asked]) and explained not in evaluation_markdown([whole])


def test_no_checks_are_no_mark_and_no_section():
    text = evaluation_markdown(RECORDS)
    assert "†" not in text and "masked" not in text and "Detection" not in text


@pytest.mark.parametrize(
    ("plain", "other", "shown"),
    [
        ({0, 1}, {2, 3}, "plain, other (2)"),
        ({0}, {1, 2}, "other (2)"),
        ({7}, {7}, "none"),
        (set(), {6}, "other (1)"),
    ],
)
def test_surrogate_that_hurts_most(plain, other, shown):
    trials = [
        trial(TRANSFER, plain, surrogate="plain"),
        trial(TRANSFER, other, surrogate="other"),
        # Neither counts what the target's own gradients fool.
        trial(WHITE_BOX, set(range(7)), tried=range(7)),
    ]
    _, lines = left([record("T_Div", trials, wrong=[7])])
    assert lines["T_Div", 0.1][-1] == shown


def test_surrogates_fooled_and_only_by_hand():
    """T_Div at 0.1: plain fools 0, 1, 2; other 1, 2. So plain alone fools 0: only transfer counts."""
    _, lines, _ = grids(RECORDS)
    assert lines == [
        ["surrogate", "trained", "T_Div: fooled, only by it", "T_Base: fooled, only by it"],
        ["plain", "seed 1000, clean accuracy 87.5 % on the attacked images", "3, 1 / 4, 4", "4, 4 / 7, 0"],
        ["other", "seed 1007, model conv4", "2, 0 / 3, 3", "1, 1 / 7, 0"],
    ]


def test_surrogates_of_each_seed_are_told():
    """Where they share one it is told once."""
    own = [dataclasses.replace(RECORDS[0], seed=1), RECORDS[0]]
    own[0] = dataclasses.replace(own[0], surrogates={**own[0].surrogates, "plain": {"seed": 6000}})
    _, (_, plain, other), _ = grids(own)
    assert plain[1] == "seed 6000; seed 1000, clean accuracy 87.5 % on the attacked images"
    assert other[1] == "seed 1007, model conv4"


def test_attacks_fooled_and_only_by_hand():
    """Versions of an attack are one; its images tried are the most that one of them was tried on.

    What an attack on the target itself alone fooled is not told: it is what it fooled.
    """
    _, _, lines = grids(RECORDS)
    head = ["attack", "on", "settings", "cost of an image", "images tried"]
    assert lines == [
        [*head, "T_Div: fooled, only by it", "T_Base: fooled, only by it"],
        ["fgsm", "plain", "", "1 gradients", "8 / 8", "1, 0 / 2, 2", "2, 2 / 7, 0"],
        # T_Div at 0.1: 0, 1, 2, of which fgsm has 0 and other 1 and 2; at 0.3: 2, 3, which none of them has.
        [
            *("pgd", "plain", "steps 20, 2 times with other random draws", "40 gradients", "8 / 8"),
            *("3, 0 / 2, 2", "2, 2 / 7, 0"),
        ],
        ["pgd", "other", "steps 20", "20 gradients", "8 / 8", "2, 0 / 3, 3", "1, 1 / 7, 0"],
        ["pgd", "the target", "steps 20", "20 gradients", "7 / 7", "2, - / 3, -", "6, - / 7, -"],
        ["square", "the target", "initial 0.8", "9 queries", "4 / 4", "1, - / 2, -", "2, - / 4, -"],
    ]


def test_images_tried_are_the_most():
    trials = [trial(TRANSFER, set(), surrogate="plain", tried=[1, 2], version=version) for version in (0, 1)]
    more = [trial(TRANSFER, set(), surrogate="plain", tried=[1, 2, 5])]
    _, _, lines = grids([record("T_Div", trials), record("T_Base", more)])
    assert lines[1][4] == "3"


def test_an_attack_of_one_epsilon_has_no_figures_at_the_other():
    """As those of the checks of masked gradients are; none fooled is another thing than none tried."""
    trials = [trial(WHITE_BOX, {1}, tried=[1, 2], attack="longer"), trial(WHITE_BOX, set(), epsilon=0.3)]
    _, _, (_, longer, pgd) = grids([record("T_Div", trials, epsilons=(0.1, 0.3))])
    assert longer[4:] == ["2 / -", "1, - / -"] and pgd[4:] == ["- / 8", "- / 0, -"]


def test_seeds_become_mean_and_deviation():
    """Accuracies under transfer of 4, 3 and 5 in 8."""
    fooled = [{"fgsm": {0, 1, 2}}, {"fgsm": {0, 1, 2, 3}}, {"fgsm": {0, 1}}]
    nothing = {name: set() for name in DIV}
    records = [made("T_Div", nothing | f, nothing, seed=seed) for seed, f in enumerate(fooled)]
    _, lines = left(records)
    shares = [100 * right / 8 for right in (4, 3, 5)]
    mean, deviation = statistics.mean(shares), statistics.stdev(shares)
    assert lines["T_Div", 0.1][1] == f"{mean:.1f} <sub>±{deviation:.1f} n=3</sub>"
    assert lines["T_Div", 0.3][1] == "87.5 <sub>±0.0 n=3</sub>"
    assert lines["T_Div", 0.1][-1] == "plain (9)", "of all seeds together"
    _, surrogates, attacks = grids(records)
    assert surrogates[1][2] == "9, 9 / 0, 0" and attacks[1][5] == "9, 9 / 0, 0"
    text = evaluation_markdown(records)
    assert "±: standard deviation over n seeds" in text and "Wilson" not in text


def test_a_mark_of_one_seed_is_the_targets():
    records = [made("T_Div", DIV, DIV_03, seed=seed, checks=(FAILED,) * seed) for seed in (0, 1)]
    _, lines = left(records)
    assert all("† <sub>±" in cell for cells in lines.values() for cell in cells[:-1])


def test_two_targets_are_paired_image_by_image():
    """In each column that both have on the same images: the paper's results kept no outcomes.

    Under transfer at 0.1 T_Div keeps 3, 4, 5, 6 and T_Base 5, 6; together 4, 5, 6 and 6; under the white box
    0, 2, 4, 5, 6 and 6, at 0.3 3, 4, 5, 6 and none; of the first four Square leaves 0, 2, 3 and 2, 3, at 0.3
    2, 3 and none. Of n images that one alone has right p is 2 / 2^n.
    """
    text = evaluation_markdown(RECORDS)
    p_transfer, p_all = (scipy.stats.binomtest(n, n).pvalue for n in (2, 2))
    assert (p_transfer, p_all) == (0.5, 0.5)
    assert (
        "- T_Div over T_Base, transfer, image by image: at epsilon 0.1 +25.0 points (95 %: -11.6 to +51.6), "
        "right where T_Base is wrong 2 images, the other way 0, exact McNemar p = 0.5; at epsilon 0.3 +0.0 "
        "points (95 %: -19.6 to +19.6), right where T_Base is wrong 0 images, the other way 0, exact McNemar "
        "p = 1\n"
    ) in text

    # By Agresti and Min: for b right alone of n, b / (n + 2) -+ 1.96 sqrt(b + 1 - b^2 / (n + 2)) / (n + 2).
    def pair(ours, points, interval, p):
        counts = f"{ours} image{'' if ours == 1 else 's'}, the other way 0"
        told = f"{points} points (95 %: {interval}), right where T_Base is wrong {counts}"
        return f"{told}, exact McNemar p = {p}"

    none, two = pair(0, "+0.0", "-19.6 to +19.6", 1), pair(2, "+25.0", "-11.6 to +51.6", 0.5)
    four = pair(4, "+50.0", "+3.9 to +76.1", 0.12)
    one_of_4, two_of_4 = pair(1, "+25.0", "-27.6 to +60.9", 1), pair(2, "+50.0", "-16.6 to +83.2", 0.5)
    pairs = {
        "clean": none,
        "transfer": f"at epsilon 0.1 {two}; at epsilon 0.3 {none}",
        "white box": f"at epsilon 0.1 {four}; at epsilon 0.3 {four}",
        "Square": f"at epsilon 0.1 {one_of_4}; at epsilon 0.3 {two_of_4}",
        "everything": f"at epsilon 0.1 {two}; at epsilon 0.3 {none}",
    }
    assert [line for line in text.splitlines() if "image by image" in line] == [
        f"- T_Div over T_Base, {name}, image by image: {told}" for name, told in pairs.items()
    ]
    assert "over T_Noise" not in text


def test_two_targets_are_paired_seed_by_seed():
    """Under the white box at 0.1 T_Div keeps 5 and 4 of 8, T_Base 1 and 2: +50.0 and +25.0 points."""
    seconds = DIV | {"white": {1, 3, 4}}, BASE | {"white": {0, 1, 2, 3, 4}}
    records = [
        *(made("T_Div", at, DIV_03, seed=seed) for seed, at in enumerate((DIV, seconds[0]))),
        *(made("T_Base", at, BASE_03, seed=seed) for seed, at in enumerate((BASE, seconds[1]))),
    ]
    text = evaluation_markdown(records)
    deviations = [statistics.stdev(100 * n / 8 for n in counts) for counts in ((5, 4), (1, 2), (4, 2))]
    ours, theirs, paired = (f"{deviation:.1f}" for deviation in deviations)
    assert (
        f"- T_Div over T_Base, white box, seed by seed, mean ± deviation: at epsilon 0.1 56.2 ± {ours} % and "
        f"18.8 ± {theirs} %, paired difference +37.5 ± {paired} points (95 %: -121.3 to +196.3), n = 2; "
        "at epsilon 0.3 50.0 ± 0.0 %"
    ) in text
    assert "- T_Div over T_Base, clean, seed by seed, mean ± deviation: 87.5 ± 0.0 % and 87.5" in text


def test_other_images_are_not_paired():
    records = [RECORDS[0], made("T_Base", BASE, BASE_03, images_digest="others")]
    assert "image by image" not in evaluation_markdown(records)


def test_notes_say_what_was_tried():
    text = evaluation_markdown(RECORDS)
    assert (
        "images: the first 8 test images, in the column Square the first 4; [ ]: 95 % Wilson interval" in text
    )
    assert "- Command of the analysis: evaluate it\n- Commit of the analysis: 0123abc\n" in text
    assert "stored" not in text
    alone = [trial(TRANSFER, {0}, surrogate="plain")]
    text = evaluation_markdown([record("T_Div", alone, stored_as="uint8")])
    assert "Square" not in text and "white box" not in text.split("####")[0].splitlines()[2]
    assert "- Targets saw adversarial images stored as uint8\n" in text


def test_sections_are_apart_by_protocol_model_and_data():
    other = record("T_Div", [trial(TRANSFER, {0}, surrogate="plain")], protocol="dverge")
    text = evaluation_markdown([*RECORDS, other])
    titles = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert titles == [f"conv3 on mnist, protocol {name}: what is left" for name in ("strong", "dverge")]


def curve(attack, images, auc, total, flagged):
    """Of so many attacked images, of which some are flagged at 1 % and at 5 % false alarms."""
    at = []
    for level, count in zip((0.01, 0.05), flagged, strict=True):
        found = scipy.stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
        counts = {"flagged": count, "total": total, "missed": total - count}
        at.append(
            {"false_alarms": level, "tpr": count / total, "low": found.low, "high": found.high, **counts}
        )
    return {"attack": attack, "score": "one_minus_confidence", "images": images, "auc": auc, "at": at}


CURVES = [
    curve("pgd", "all", 0.75, 8, (2, 4)),
    curve("pgd", "fooled", 0.875, 4, (1, 4)),
    curve("fgsm", "all", 0.5, 6, (0, 0)),
]


def test_detection_by_hand():
    text = evaluation_markdown([made("T_Div", DIV, DIV_03, detection={"curves": CURVES})])
    assert "that of all but 1 % / 5 % of the clean test images" in text.split("#### Detection")[1]
    rates = {counts: percent(*counts) for counts in ((2, 8), (4, 8), (1, 4), (4, 4), (0, 6))}
    assert grids([made("T_Div", DIV, DIV_03, detection={"curves": CURVES})])[-1] == [
        [
            *("target", "attack", "score", "AUC", "images", "flagged of all, %"),
            *("images that fool", "flagged of those that fool, %", "fool unseen"),
        ],
        [
            *("T_Div", "pgd", "one minus confidence", "0.750", "8", f"{rates[2, 8]} / {rates[4, 8]}"),
            *("4", f"{rates[1, 4]} / {rates[4, 4]}", "3 / 0"),
        ],
        [
            *("T_Div", "fgsm", "one minus confidence", "0.500", "6", f"{rates[0, 6]} / {rates[0, 6]}"),
            *("0", "-", "0"),
        ],
    ]


def test_detection_says_whether_images_that_fool_were_right():
    """One record of before is enough to say that they were not."""
    old, new = {"curves": CURVES}, {"curves": CURVES, "fooled_were_right": True}
    for found, are_right in (([new, new], True), ([old, new], False), ([new, {}], True)):
        text = evaluation_markdown(
            [made("T_Div", DIV, DIV_03, seed=seed, detection=each) for seed, each in enumerate(found)]
        )
        assert ("Images that fool are right when clean." in text) == are_right
        assert ("include, in these records, those that are wrong when clean already." in text) != are_right


@pytest.mark.parametrize("detection", [{}, {"clean": {"images": 8}, "attacks": {}, "curves": []}])
def test_where_nothing_stands_there_is_no_detection(detection):
    assert "Detection" not in evaluation_markdown([made("T_Div", DIV, DIV_03, detection=detection)])


def test_console_shows_what_the_report_does():
    lines = evaluation_text(RECORDS).splitlines()
    assert lines[0] == "conv3 on mnist, protocol strong"
    _, expected = left()
    for (target, epsilon), cells in expected.items():
        (line,) = (text for text in lines if text.split()[:2] == [target, f"{epsilon:g}"])
        shown = [cell.replace("<sub>", "").replace("</sub>", "") for cell in cells]
        assert re.split(r" {2,}", line) == [target, f"{epsilon:g}", *shown]
    assert "<" not in "".join(lines)


def test_record_of_a_table_has_each_kind_and_all_together():
    found = as_target_record(RECORDS[0])
    counts = {(r.attack, r.epsilon): (r.correct, r.total) for r in found.results}
    assert counts == {
        ("clean", 0.0): (7, 8),
        (TRANSFER, 0.1): (4, 8),
        (TRANSFER, 0.3): (0, 8),
        (WHITE_BOX, 0.1): (5, 8),
        (WHITE_BOX, 0.3): (4, 8),
        (QUERY, 0.1): (3, 4),
        (QUERY, 0.3): (2, 4),
        (WORST_CASE, 0.1): (3, 8),
        (WORST_CASE, 0.3): (0, 8),
        ("paper", 0.1): (9, 10),
        ("paper", 0.3): (5, 10),
    }
    assert all(sum(r.outcomes) == r.correct for r in found.results if r.hits)
    assert {r.images for r in found.results if r.attack != "paper"} == {"of all"}
    assert IMAGES == 8
