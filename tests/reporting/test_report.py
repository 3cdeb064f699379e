import csv
import dataclasses
import fractions
import io
import itertools
import json
import math
import pathlib
import statistics
import struct
import subprocess
import sys

import pytest

from divtf.data import paper
from divtf.reporting import captions, cells, labels, markdown, paired, plain_text, report, table_data, tables
from divtf.reporting.figures import style
from divtf.reporting.figures.accuracy import accuracy_figure
from divtf.reporting.figures.coherence import coherence_figure
from divtf.reporting.figures.pair_cosines import pair_cosine_figure
from divtf.reporting.figures.table import table_figure
from divtf.storage import files
from divtf.storage.records import CLEAN, WORST_CASE, TargetRecord, TransferResult, packed, wilson_interval

ROOT = pathlib.Path(__file__).parents[2]
FIVE = {"fgsm": (90, 20), "rfgsm": (80, 30), "ifgsm": (70, 10), "mifgsm": (70, 40), "pgd_cw": (85, 50)}
BUDGET = {"members": 3, "epochs": 2, "precision": "float32", "gal_weight": 0.5, "reduced": True}


def _record(target="T_Base", correct=FIVE, *, clean=99, seed=0, worst=None, **changes):
    """A record of 100 images on conv3: correct[attack] holds the counts at epsilon 0.1 and 0.3."""
    named = {**correct, **({WORST_CASE: worst} if worst else {})}
    attacked = [
        TransferResult(target, "S_Base", attack, epsilon, count, 100, 0.125 if epsilon == 0.1 else 0.25, "d1")
        for attack, counts in named.items()
        for epsilon, count in zip((0.1, 0.3), counts, strict=False)
    ]
    values = {
        "target": target,
        "model": "conv3",
        "dataset": "mnist",
        "seed": seed,
        "results": (TransferResult(target, "", CLEAN, 0.0, clean, 100), *attacked),
        "coherence": (0.1, 0.2, 0.6),
        "pair_cosines": ((1.0, 0.5, -0.25), (0.5, 1.0, 0.125), (-0.25, 0.125, 1.0)),
        "budget": BUDGET,
        "provenance": {"command": "python -m divtf.main --model=conv3", "commit": "0123abc"},
    }
    return TargetRecord(**values | changes)


def _bare(target="mine", **changes):
    return _record(target, {}, coherence=(), pair_cosines=(), budget={}, provenance={}, **changes)


DIV = _record(
    "T_Div", {"fgsm": (95, 60), "rfgsm": (85, 50), "ifgsm": (75, 40), "mifgsm": (65, 35), "pgd_cw": (90, 65)}
)


def _percent_interval(correct, total=100):
    return "[{:.1f}-{:.1f}]".format(*(100 * bound for bound in wilson_interval(correct, total)))


def _markdown_rows(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: dict(zip(lines[0], line, strict=False)) for line in lines[2:]}


class TestPaper:
    def test_table_is_complete(self):
        for model, target in itertools.product(paper.MODELS, paper.TARGETS):
            cells = paper.TABLE_2[model][target]
            assert list(cells) == ["clean", *paper.ATTACKS]
            assert list(cells["clean"]) == [0.0]
            expected = [0.1, 0.3] if model == "conv3" else [0.03, 0.09]
            assert all(list(cells[attack]) == expected for attack in paper.ATTACKS)
            assert all(0 < value < 100 for cell in cells.values() for value in cell.values())

    @pytest.mark.parametrize(
        ("model", "target", "attack", "epsilon", "accuracy"),
        [
            ("conv3", "T_Base", "clean", 0, 99.4),
            ("conv3", "T_Base", "ifgsm", 0.3, 0.7),
            ("conv3", "T_Ens+Div", "pgd_cw", 0.1, 98.2),
            ("conv4", "T_Div", "mifgsm", 0.03, 35.0),
            ("conv4", "T_Ens", "rfgsm", 0.09, 54.9),
            ("resnet20", "T_Base", "fgsm", 0.03, 28.8),
            ("resnet20", "T_Ens+Div", "pgd_cw", 0.09, 46.3),
            ("mix", "T_Div", "mifgsm", 0.09, 7.1),
            ("mix", "T_Ens+Div", "clean", 0, 86.4),
        ],
    )
    def test_spot_values(self, model, target, attack, epsilon, accuracy):
        assert paper.paper_accuracy(model, target, attack, epsilon) == accuracy

    def test_what_the_table_lacks(self):
        assert paper.paper_accuracy("conv3", "T_Base", "fgsm", 0.2) is None
        assert paper.paper_accuracy("conv3", "T_Base", "worst_case", 0.1) is None
        assert paper.paper_accuracy("conv3", "mine", "fgsm", 0.1) is None
        assert paper.paper_accuracy("resnet26", "T_Base", "clean", 0) is None

    def test_claims_of_section_4_2(self):
        # "higher classification accuracy on adversarial examples compared to T_Base for all the attacks",
        # "the classification accuracy of clean examples drops slightly".
        for model in paper.MODELS:
            base, div = paper.TABLE_2[model]["T_Base"], paper.TABLE_2[model]["T_Div"]
            assert div["clean"][0.0] < base["clean"][0.0]
            for attack in paper.ATTACKS:
                assert all(div[attack][epsilon] > accuracy for epsilon, accuracy in base[attack].items())

    def test_datasets_beside_which_the_table_may_stand(self):
        assert paper.is_paper_dataset("conv3", "mnist")
        assert not paper.is_paper_dataset("conv3", "mnist5k")
        assert not paper.is_paper_dataset("conv3", "cifar10")
        assert not paper.is_paper_dataset("conv4", "cifar100")
        assert not paper.is_paper_dataset("resnet26", "cifar10")


class TestTables:
    def test_single_seed_has_the_wilson_interval(self):
        cell = tables.Cell((TransferResult("T", "S", "fgsm", 0.1, 8, 10),))
        assert cell.accuracy == pytest.approx(80)
        assert cell.deviation is None
        assert cell.bounds == pytest.approx((49.02, 94.33), abs=5e-3)
        assert cell.spread == "[49.0-94.3]"

    def test_several_seeds_have_mean_and_deviation(self):
        counts = (90, 80, 97)
        records = [_record(seed=seed, correct={"fgsm": (count,)}) for seed, count in enumerate(counts)]
        (table,) = tables.tables(records)
        cell = table.rows[0].cell("fgsm", 0.1)
        deviation = statistics.stdev(counts)
        assert cell.accuracy == pytest.approx(89)
        assert cell.deviation == pytest.approx(deviation)
        assert cell.bounds == pytest.approx((89 - deviation, 89 + deviation))
        assert cell.spread == "±8.5 n=3"

    def test_a_seed_without_the_attack_does_not_count(self):
        records = [_record(seed=seed) for seed in (0, 1)] + [_record(seed=2, correct={"fgsm": (10,)})]
        row = tables.tables(records)[0].rows[0]
        assert row.cell("fgsm", 0.1).spread.endswith("n=3")
        assert row.cell("fgsm", 0.3).spread.endswith("n=2")
        assert row.cell("fgsm", 0.2) is None

    def test_strongest_marks_every_attack_of_a_tie(self):
        row = tables.tables([_record(worst=(50, 5))])[0].rows[0]
        assert row.strongest(FIVE, 0.1) == {"ifgsm", "mifgsm"}
        assert row.strongest(FIVE, 0.3) == {"ifgsm"}
        assert row.strongest(FIVE, 0.2) == frozenset()

    def test_order_is_the_papers(self):
        records = [_bare("mine"), DIV, _record(correct=dict(reversed(FIVE.items())))]
        (table,) = tables.tables(records)
        assert [row.target for row in table.rows] == ["T_Base", "T_Div", "mine"]
        assert table.attacks == paper.ATTACKS
        assert table.epsilons == (0.1, 0.3)

    def test_each_model_and_dataset_has_its_table(self):
        found = tables.tables([_record(), _record(model="conv4", dataset="cifar10"), DIV])
        assert [table.title for table in found] == ["conv3 on mnist", "conv4 on cifar10"]
        assert [len(table.rows) for table in found] == [2, 1]

    def test_saturated_is_the_largest_share(self):
        row = tables.tables([_record()])[0].rows[0]
        assert (row.saturated(0.1), row.saturated(0.3), row.saturated(0.2)) == (12.5, 25.0, None)

    def test_gains_by_hand(self):
        # T_Div against T_Base at 0.1: worst 65 - 70, mean (95+85+75+65+90)/5 - (90+80+70+70+85)/5 = 82 - 79;
        # at 0.3: worst 35 - 10, mean 50 - 30.
        clean, small, large = tables.gains(tables.tables([_record(), DIV])[0])
        assert dataclasses.astuple(clean) == pytest.approx((0.0, 0.0, 0.0, 1))
        assert dataclasses.astuple(small) == pytest.approx((0.1, -5.0, 3.0, 5))
        assert dataclasses.astuple(large) == pytest.approx((0.3, 25.0, 20.0, 5))

    def test_gains_compare_only_seeds_that_both_have(self):
        other = dataclasses.replace(DIV, seed=1, results=_record("T_Div", {"fgsm": (5, 5)}, clean=5).results)
        alone = tables.gains(tables.tables([_record(), DIV])[0])
        (uneven,) = tables.tables([_record(), DIV, other])
        assert tables.gains(uneven) == alone
        told = captions.gain(uneven)[0]
        assert told.startswith("T_Div over T_Base, points at epsilon 0.1 / 0.3, of seeds 0 alone: strongest")
        assert ", of seeds" not in captions.gain(tables.tables([_record(), DIV])[0])[0]
        assert tables.gains(tables.tables([_record(), other])[0]) == [], "of no seed that both have"

    def test_gains_compare_only_attacks_that_both_have(self):
        part = _record("T_Div", {"fgsm": (95,)}, clean=97)
        gains = tables.gains(tables.tables([_record(), part])[0])
        assert [dataclasses.astuple(gain) for gain in gains] == [
            pytest.approx((0.0, -2.0, -2.0, 1)),
            pytest.approx((0.1, 5.0, 5.0, 1)),
        ]
        assert tables.gains(tables.tables([_record()])[0]) == []

    def test_no_records_and_doubled_ones_are_refused(self):
        with pytest.raises(ValueError, match=r"Expected at least one record. Received: none"):
            tables.tables([])
        with pytest.raises(ValueError, match=r"Expected one result for each .* Received: several for"):
            tables.tables([_record(), _record()])


def kept(attack, hits, *, epsilon=0.1, target="T_Div", images="i", **changes):
    """A result whose outcomes are written out, "110" being right, right, wrong."""
    right = hits.count("1")
    outcomes = {"hits": packed(digit == "1" for digit in hits), "images": images}
    return TransferResult(target, "S", attack, epsilon, right, len(hits), **outcomes | changes)


def of(target, *results, seed=0):
    return _bare(target, seed=seed, results=tuple(dataclasses.replace(r, target=target) for r in results))


def _lines(records):
    """The caption, without its bullets."""
    text = markdown.table_markdown(records)
    return [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]


class TestLabels:
    def test_results_of_one_attack_stand_apart_by_the_settings_in_which_they_differ(self):
        params = {"steps": 1, "step": 0.1, "loss": "hinge"}
        one = kept("pgd_cw", "1110", settings=params)
        five = kept("pgd_cw", "1000", settings=params | {"steps": 5})
        record = of("T_Div", one, five, kept("fgsm", "1111"), kept(WORST_CASE, "1000"))
        (table,) = tables.tables([record])
        assert table.attacks == ("fgsm", "pgd_cw, steps 1", "pgd_cw, steps 5")
        assert table.columns == (*table.attacks, WORST_CASE)
        assert [table.rows[0].cell(name, 0.1).accuracy for name in table.columns] == [100, 75, 25, 25]
        assert table.rows[0].strongest(table.attacks, 0.1) == {"pgd_cw, steps 5"}
        header = plain_text.table_text([record]).splitlines()[2].split("  ")
        assert {"pgd_cw, steps 1", "pgd_cw, steps 5", "worst case"} <= set(map(str.strip, header))
        told = [line for line in _lines([record]) if line.startswith("Attacks: ")]
        assert told == ["Attacks: pgd_cw steps 1, step 0.1, loss hinge; pgd_cw steps 5, step 0.1, loss hinge"]

    def test_what_is_not_told_is_no_difference(self):
        old = of("T_Base", kept("pgd_cw", "10"))
        new = of("T_Div", kept("pgd_cw", "10", settings={"steps": 30}))
        newer = of("T_Ens", kept("pgd_cw", "10", settings={"steps": 30, "restarts": 1}))
        assert tables.tables([old, new, newer])[0].attacks == ("pgd_cw",)

    def test_equal_settings_twice_are_refused_still(self):
        one = kept("pgd_cw", "10", settings={"steps": 30})
        with pytest.raises(ValueError, match="Expected one result for each"):
            tables.tables([of("T_Div", one, one)])

    def test_forms_of_storage_stand_apart_with_their_worst_cases(self):
        results = [
            kept(attack, hits, stored_as=form)
            for form, hits in (("float32", "1100"), ("jpeg", "1110"))
            for attack in ("fgsm", WORST_CASE)
        ]
        (table,) = tables.tables([of("T_Div", *results)])
        assert table.attacks == ("fgsm, stored as float32", "fgsm, stored as jpeg")
        assert table.worst_cases == ("worst_case, stored as float32", "worst_case, stored as jpeg")
        accuracies = [table.rows[0].cell(name, 0.1).accuracy for name in table.worst_cases]
        assert accuracies == [50, 75]


SURROGATE = {"objective": "CrossEntropy", "seed": 1000, "learning rate": 0.001, "clean accuracy": 0.9875}


class TestUnderAttack:
    def test_attacks_and_surrogate_are_named_whole_in_every_form(self):
        told = {"surrogate_settings": SURROGATE, "stored_as": "uint8"}
        record = of(
            "T_Div",
            kept("ifgsm", "10", settings={"steps": 10}, **told),
            kept("fgsm", "10", **told),
            kept("ifgsm", "10", epsilon=0.3, settings={"steps": 10}, **told),
        )
        expected = {
            "Attacks: fgsm; ifgsm steps 10",
            "Surrogate S: objective CrossEntropy, seed 1000, learning rate 0.001, "
            "clean accuracy 98.8 % on the attacked images",
        }
        text = " ".join(plain_text.table_text([record]).split())
        [table] = json.loads(table_data.table_json([record]))
        assert expected <= set(_lines([record])) and expected <= set(table["caption"])
        assert all(line in text for line in (*expected, "targets see adversarial images stored as uint8"))
        lines = list(csv.DictReader(io.StringIO(table_data.table_csv([record]))))
        assert [line["settings"] for line in lines] == ["steps 10", "", "steps 10"]
        assert {line["stored_as"] for line in lines} == {"uint8"}
        assert all("seed 1000" in line["surrogate_settings"] for line in lines)

    def test_older_records_tell_neither(self):
        assert not any(
            line.startswith(("Attacks", "Surrogate S:", "Images that one")) for line in _lines([DIV])
        )

    def test_images_that_one_attack_alone_fools_by_hand(self):
        # Image 0 fools all three, 1 and 2 the first alone, 3 the second alone, 4 the first two, 5 none.
        hits = {"fgsm": "000101", "ifgsm": "011001", "mine": "011111"}
        record = of("T_Div", *(kept(name, text) for name, text in hits.items()), kept(WORST_CASE, "000001"))
        row = tables.tables([record])[0].rows[0]
        assert [row.only(name, 0.1) for name in (*hits, WORST_CASE)] == [2, 1, 0, None]
        assert row.only("fgsm", 0.3) is None
        line = "Images that one attack alone fools, at epsilon 0.1: T_Div fgsm 2, ifgsm 1, mine 0"
        assert line in _lines([record])
        lines = csv.DictReader(io.StringIO(table_data.table_csv([record])))
        assert [line["only"] for line in lines] == ["2", "1", "0", ""]
        [table] = json.loads(table_data.table_json([record]))
        assert [cell["only"] for cell in table["rows"][0]["cells"]] == [2, 1, 0, None]

    def test_images_alone_are_those_of_all_seeds_and_of_one_epsilon(self):
        records = [
            of("T_Div", kept("fgsm", hits), kept("ifgsm", "11"), kept("ifgsm", "00", epsilon=0.3), seed=seed)
            for seed, hits in enumerate(("00", "01"))
        ]
        row = tables.tables(records)[0].rows[0]
        assert (row.only("fgsm", 0.1), row.only("ifgsm", 0.1), row.only("ifgsm", 0.3)) == (3, 0, None)

    @pytest.mark.parametrize("changes", [{"hits": ""}, {"images": "j"}])
    def test_outcomes_that_were_not_kept_or_are_of_other_images_count_nothing(self, changes):
        (table,) = tables.tables(
            [of("T_Div", kept("fgsm", "10"), dataclasses.replace(kept("ifgsm", "10"), **changes))]
        )
        assert table.rows[0].only("fgsm", 0.1) is table.rows[0].only("ifgsm", 0.1) is None


class TestPaired:
    @pytest.mark.parametrize(
        ("ours", "theirs"), [(68, 1), (1, 68), (0, 0), (0, 3), (5, 5), (10, 4), (301, 250)]
    )
    def test_p_is_the_sum_of_the_binomial_s_tails(self, ours, theirs):
        differ = ours + theirs
        # Twice the smaller tail of differ tosses of a fair coin, in whole numbers; at most 1.
        tail = sum(math.comb(differ, k) for k in range(min(ours, theirs) + 1))
        expected = min(1.0, float(fractions.Fraction(2 * tail, 2**differ)))
        assert paired.Paired(ours, theirs, 1000).p_value == pytest.approx(expected, rel=1e-9)

    def test_published_example(self):
        """Agresti, "Categorical Data Analysis", Table 10.1: approval at two surveys of 1600 people.

        150 changed from yes to no, 86 from no to yes; z = -4.17, so p is some 3e-5.
        """
        found = paired.Paired(150, 86, 1600)
        assert found.difference == pytest.approx(4.0)
        z = (86 - 150) / math.sqrt(86 + 150)
        assert z == pytest.approx(-4.17, abs=5e-3)
        assert found.p_value == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), rel=0.25)

        low, high = found.interval  # The book's is [0.02, 0.06].
        assert (low, high) == pytest.approx((2.1, 5.9), abs=0.05)

    def test_an_interval_holds_the_true_difference_19_times_of_20(self, rng):
        chances, total = (0.15, 0.05, 0.8), 100
        held = []
        for ours, theirs, _ in rng.multinomial(total, chances, size=4000):
            low, high = paired.Paired(int(ours), int(theirs), total).interval
            held.append(low <= 10 <= high)
        assert 0.94 < statistics.fmean(held) < 0.965

    def test_the_interval_of_a_mean_is_student_s(self):
        """His quantiles at 97.5 % are 12.706, 4.303 and 2.262 for 1, 2 and 9 degrees of freedom."""
        for values, quantile in {(1.0, 3.0): 12.706, (1.0, 2.0, 3.0): 4.303, tuple(range(10)): 2.262}.items():
            half = quantile * statistics.stdev(values) / math.sqrt(len(values))
            middle = statistics.fmean(values)
            expected = (middle - half, middle + half)
            assert paired.mean_interval(values) == pytest.approx(expected, rel=1e-3)

    def test_counts_of_two_outcomes(self):
        assert paired.paired([True, True, False, False], [True, False, True, False]) == paired.Paired(1, 1, 4)
        assert paired.paired([True] * 3, [False] * 3) == paired.Paired(3, 0, 3)
        with pytest.raises(ValueError, match="zip"):
            paired.paired([True], [True, False])

    @pytest.mark.parametrize(
        "changes", [{"hits": ""}, {"images": "j"}, {"images": ""}, {"total": 3, "hits": "c"}]
    )
    def test_results_on_other_images_are_no_pair(self, changes):
        mine, other = kept("fgsm", "1100"), kept("fgsm", "1000")
        assert paired.paired_results(mine, other) == paired.Paired(1, 0, 4)
        assert paired.paired_results(mine, dataclasses.replace(other, **changes)) is None
        assert paired.paired_results(mine, None) is None

    def test_a_gain_is_told_image_by_image(self):
        """200 images: T_Div alone is right on 68, T_Base alone on 1; as the binomial sum above has it."""
        base, div = "1" + "0" * 68 + "1" * 131, "0" + "1" * 68 + "1" * 131
        noise = of("T_Noise", kept(WORST_CASE, div), kept("fgsm", div))
        records = [
            of(target, kept("fgsm", hits), kept(WORST_CASE, hits))
            for target, hits in (("T_Base", base), ("T_Div", div))
        ]
        lines = _lines([*records, noise])
        assert (
            "T_Div over T_Base, worst case, image by image: at epsilon 0.1 +33.5 points (95 %: +26.5 to "
            "+39.9), right where T_Base is wrong 68 images, the other way 1, exact McNemar p = 2e-19"
        ) in lines
        assert (
            "T_Div over T_Noise, worst case, image by image: at epsilon 0.1 +0.0 points (95 %: -1.0 to "
            "+1.0), right where T_Noise is wrong 0 images, the other way 0, exact McNemar p = 1"
        ) in lines
        both, ens = of("T_Ens+Div", kept(WORST_CASE, div), kept("fgsm", div)), of("T_Ens", kept("fgsm", div))
        told = [line for line in _lines([*records, ens, both]) if line.startswith("T_Ens+Div over")]
        assert [line.partition(",")[0] for line in told] == [
            *("T_Ens+Div over T_Ens", "T_Ens+Div over T_Base", "T_Ens+Div over T_Base")
        ]
        assert "right where T_Base is wrong 68 images, the other way 1" in told[-1]
        [table] = json.loads(table_data.table_json([*records, noise]))
        assert set(lines) & {line for line in table["caption"] if "McNemar" in line}

    def test_several_seeds_have_their_own_counts_and_the_deviation_of_the_difference(self):
        outcomes = {0: ("1000", "1110"), 1: ("1100", "1110"), 2: ("1100", "1111")}
        records = [
            of(target, kept("fgsm", hits), kept(WORST_CASE, hits), seed=seed)
            for seed, both in outcomes.items()
            for target, hits in zip(("T_Base", "T_Div"), both, strict=True)
        ]
        by_image, by_seed = [line for line in _lines(records) if " by " in line and "T_Div over" in line]
        assert by_image.endswith(
            "at epsilon 0.1 seed 0, +50.0 points (95 %: -16.6 to +83.2), right where T_Base is wrong 2 "
            "images, the other way 0, exact McNemar p = 0.5; seed 1, +25.0 points (95 %: -27.6 to +60.9), "
            "right where T_Base is wrong 1 image, the other way 0, exact McNemar p = 1; seed 2, +50.0 points "
            "(95 %: -16.6 to +83.2), right where T_Base is wrong 2 images, the other way 0, exact McNemar "
            "p = 0.5"
        )
        # 75, 75, 100 and 25, 50, 50; their differences 50, 25, 50, each of deviation 25 / sqrt(3): 4.303 / 3
        # of 25 to either side.
        assert by_seed == (
            "T_Div over T_Base, worst case, seed by seed, mean ± deviation: at epsilon 0.1 83.3 ± 14.4 % and "
            f"41.7 ± 14.4 %, paired difference +41.7 ± {25 / math.sqrt(3):.1f} points (95 %: +5.8 to +77.5), "
            "n = 3"
        )

    def test_without_outcomes_or_a_seed_in_common_nothing_is_paired(self):
        old = [_record(worst=(50, 5)), dataclasses.replace(DIV, seed=1)]
        assert not any("image by image" in line or "seed by seed" in line for line in _lines(old))

    @pytest.mark.parametrize(
        ("p", "words"), [(1.0, "p = 1"), (0.0312, "p = 0.031"), (2.37e-19, "p = 2e-19"), (0.0, "p < 1e-300")]
    )
    def test_p_in_words(self, p, words):
        assert paired.in_words(p) == words


class TestText:
    def test_the_whole_table(self):
        records = [
            _record(correct={"fgsm": (90, 20), "ifgsm": (70, 10)}),
            _record("T_Div", {"fgsm": (95, 5)}),
        ]
        i = _percent_interval
        assert plain_text.table_text(records).splitlines() == [
            "conv3 on mnist: accuracy in percent at epsilon 0.1 / 0.3",
            "-" * 51,
            "target    clean        fgsm           ifgsm",
            "-" * 51,
            "T_Base     99.0         90.0 / 20.0    70.0*/ 10.0*",
            f"  at 0.1  {i(99)}  {i(90)}    {i(70)}",
            f"  at 0.3               {i(20)}    {i(10)}",
            "T_Div      99.0         95.0*/  5.0*      - /    -",
            f"  at 0.1  {i(99)}  {i(95)}",
            f"  at 0.3               {i(5)}",
            "-" * 51,
            "Images: 100 clean, 100 attacked; [ ]: 95 % Wilson interval; *: strongest attack; "
            "surrogate: S_Base; saturated images:",
            "  up to 25.0 %; seed: 0",
            "Budget: members 3, epochs 2, precision float32, gal_weight 0.5, REDUCED: less than the paper's",
            "Commit: 0123abc",
            "Mean coherence (Equation 7) on clean test images: T_Base 0.30, T_Div 0.30",
            "T_Div over T_Base, points at epsilon 0.1 / 0.3: strongest attack +5.0 / -15.0, "
            "mean of 1 +5.0 / -15.0, clean +0.0",
            "There is no paired test of this: the records tell no outcomes of the same images. A gain within "
            "the intervals may be",
            "  chance",
            "T_Div also trains on noisy images, and so for twice as many steps as T_Base: the gain is not "
            "GAL's alone. T_Noise",
            "  (mode noise) has both without GAL",
        ]

    def test_fits_a_console(self):
        full = {attack: (100, 100) for attack in FIVE}
        records = [_record(target, full, clean=100, worst=(100, 100)) for target in paper.TARGETS]
        assert max(map(len, plain_text.table_text(records).splitlines())) <= 120

    def test_gain_and_what_of_it_may_be_noise(self):
        [gain] = [
            line for line in plain_text.table_text([_record(), DIV]).splitlines() if "T_Div over" in line
        ]
        assert gain.endswith(": strongest attack -5.0 / +25.0, mean of 5 +3.0 / +20.0, clean +0.0")

    def test_gain_over_the_noise_takes_the_warning_s_place(self):
        noise = _record("T_Noise", dict.fromkeys(FIVE, (60, 30)))
        text = " ".join(plain_text.table_text([_record(), noise, DIV]).split())
        assert "T_Div over T_Noise, points at epsilon 0.1 / 0.3: strongest attack +5.0 / +5.0" in text
        assert "T_Div over T_Base" in text and "not GAL's alone" not in text

    def test_seeds_are_put_together(self):
        text = plain_text.table_text([_record(seed=seed, clean=clean) for seed, clean in ((0, 98), (1, 94))])
        assert " 96.0 " in text
        assert f"±{statistics.stdev([98, 94]):.1f} n=2" in text
        assert "seeds: 0, 1" in text
        assert "Wilson" not in text

    def test_clean_images_alone(self):
        text = plain_text.table_text([_bare()])
        assert f"\n        {_percent_interval(99)}\n" in text
        assert "Budget: not recorded" in text


class TestMarkdown:
    def test_bold_marks_exactly_the_strongest(self):
        rows = _markdown_rows(markdown.table_markdown([_record(worst=(50, 5)), DIV]))
        bold = {
            (target, attack): [part.strip().startswith("**") for part in cell.split("<br>")[0].split("/")]
            for target, cells in rows.items()
            for attack, cell in cells.items()
            if attack in FIVE
        }
        marked = {key: flags for key, flags in bold.items() if any(flags)}
        assert marked == {
            ("T_Base", "ifgsm"): [True, True],
            ("T_Base", "mifgsm"): [True, False],
            ("T_Div", "mifgsm"): [True, True],
        }

    def test_cells(self):
        row = _markdown_rows(markdown.table_markdown([_record(worst=(50, 5))]))["T_Base"]
        i = _percent_interval
        assert row["clean"] == f"99.0<br><sub>{i(99)}</sub>"
        assert row["mifgsm"] == f"**70.0** / 40.0<br><sub>{i(70)} / {i(40)}</sub>"
        assert row["worst case"] == f"50.0 / 5.0<br><sub>{i(50)} / {i(5)}</sub>"
        assert row["saturated, %"] == "12.5 / 25.0"

    def test_worst_case_only_where_measured(self):
        assert "worst case" not in markdown.table_markdown([_record()])

    def test_against_the_paper(self):
        # conv3, T_Base: clean 99.4, FGSM 91.4 / 9.7, I-FGSM 86.1 / 0.7.
        text = markdown.table_markdown([_record(worst=(50, 5))], against_paper=True)
        rows = _markdown_rows(text)
        assert list(rows) == ["T_Base, ours", "T_Base, paper", "T_Base, difference"]
        assert [rows["T_Base, paper"][name] for name in ("clean", "fgsm", "ifgsm")] == [
            "99.4",
            "91.4 / 9.7",
            "86.1 / 0.7",
        ]
        assert [rows["T_Base, difference"][name] for name in ("clean", "fgsm", "ifgsm")] == [
            "-0.4",
            "-1.4 / +10.3",
            "-16.1 / +9.3",
        ]
        assert rows["T_Base, difference"]["worst case"] == "- / -"
        assert "Table 2, conv3 on mnist, all test images" in text

    def test_nothing_stands_beside_what_the_paper_did_not_measure(self):
        for changes in ({"dataset": "fashion"}, {"target": "T_Noise"}):
            rows = _markdown_rows(markdown.table_markdown([_record(**changes)], against_paper=True))
            assert list(rows) == [changes.get("target", "T_Base")]

    def test_caption(self):
        other = dataclasses.replace(DIV, budget={"members": 3, "reduced": False}, provenance={})
        text = markdown.table_markdown([_record(), other])
        assert (
            "- Budget of T_Base: members 3, epochs 2, precision float32, gal_weight 0.5, REDUCED: less than"
            in text
        )
        assert "- Budget of T_Div: members 3, not reduced: the paper's\n" in text
        assert "- Commit of T_Base: 0123abc\n- Commit of T_Div: not recorded\n" in text
        assert "seed: 0" in text

    def test_caption_tells_seeds_where_a_target_was_trained_in_several_ways(self):
        later = [
            dataclasses.replace(_record(), seed=seed, provenance={"commit": "fedc321"}) for seed in (1, 2)
        ]
        text = markdown.table_markdown([_record(), *later])
        assert "- Commit of T_Base at seed 0: 0123abc\n- Commit of T_Base at seeds 1, 2: fedc321\n" in text
        assert "- Budget: members 3" in text

    def test_hours_of_training_are_told_for_each_target(self):
        def took(record, hours):
            return dataclasses.replace(record, provenance={"hours": hours})

        records = [took(_record(), 0.25), took(_record(seed=1), 0.5), took(DIV, 12.345), _record("mine")]
        line = "Hours of training, surrogate and static model left out: T_Base 0.75 (2 seeds), T_Div 12"
        assert f"- {line}\n" in markdown.table_markdown(records)
        assert line in " ".join(plain_text.table_text(records).split())
        assert line in json.loads(table_data.table_json(records))[0]["caption"]
        assert "Hours" not in markdown.table_markdown([_record()])

    def test_differences_are_never_minus_zero(self):
        assert [cells.signed(value) for value in (-0.04, 0.0, 0.06, -1.25, 12)] == [
            "+0.0",
            "+0.0",
            "+0.1",
            "-1.2",
            "+12.0",
        ]


def test_csv_gives_the_records_back():
    records = [_record(worst=(50, 5)), DIV, _record(seed=1), _bare(dataset="fashion")]
    lines = list(csv.DictReader(io.StringIO(table_data.table_csv(records))))
    results = [(record, result) for record in records for result in record.results]
    assert len(lines) == len(results)
    found = {(line["dataset"], line["target"], int(line["seed"])): [] for line in lines}
    for line in lines:
        result = TransferResult(
            line["target"],
            line["surrogate"],
            line["attack"],
            float(line["epsilon"]),
            int(line["correct"]),
            int(line["total"]),
            float(line["saturated"]),
            line["adversarial_set"],
        )
        assert line["model"] == "conv3"
        assert (float(line["accuracy"]), float(line["low"]), float(line["high"])) == (
            result.accuracy,
            *result.interval,
        )
        published = paper.paper_accuracy("conv3", result.target, result.attack, result.epsilon)
        if published is None or line["dataset"] == "fashion":
            assert line["paper_accuracy"] == ""
        else:
            assert 100 * float(line["paper_accuracy"]) == pytest.approx(published)
        found[line["dataset"], line["target"], int(line["seed"])].append(result)
    assert found == {(record.dataset, record.target, record.seed): list(record.results) for record in records}


def test_csv_says_budget_deviation_difference_and_strongest():
    # conv3, T_Base, FGSM at 0.1: the paper's 91.4; ours 90 and 80 of 100: mean 85, deviation 10 / sqrt(2).
    records = [_record(), _record(seed=1, correct=FIVE | {"fgsm": (80, 20)}), DIV, _bare()]
    lines = list(csv.DictReader(io.StringIO(table_data.table_csv(records))))
    assert set(lines[0]) == set(table_data.CSV_FIELDS)
    [line] = [
        line
        for line in lines
        if (line["target"], line["seed"], line["attack"], line["epsilon"]) == ("T_Base", "1", "fgsm", "0.1")
    ]
    assert (float(line["mean"]), float(line["difference"])) == pytest.approx((0.85, 0.85 - 0.914))
    assert float(line["deviation"]) == pytest.approx(math.sqrt(0.005), abs=1e-6)
    assert (line["members"], line["epochs"], line["reduced"], line["training images"]) == (
        "3",
        "2",
        "True",
        "",
    )
    assert {x["members"] for x in lines if x["target"] == "mine"} == {""}
    strongest = {(x["target"], x["attack"], x["epsilon"]) for x in lines if x["strongest"] == "1"}
    assert strongest == {
        *(("T_Base", "ifgsm", "0.1"), ("T_Base", "mifgsm", "0.1"), ("T_Base", "ifgsm", "0.3")),
        *(("T_Div", "mifgsm", "0.1"), ("T_Div", "mifgsm", "0.3")),
    }
    assert {x["deviation"] for x in lines if x["target"] == "T_Div"} == {""}


def test_json_holds_what_the_table_shows():
    [table] = json.loads(table_data.table_json([_record(worst=(50, 5)), DIV]))
    assert (table["model"], table["dataset"], table["epsilons"]) == ("conv3", "mnist", [0.1, 0.3])
    assert table["attacks"] == list(FIVE)
    base, div = table["rows"]
    assert (base["target"], base["seeds"], div["target"]) == ("T_Base", [0], "T_Div")
    assert [(cell["attack"], cell["epsilon"]) for cell in base["cells"]] == [
        (CLEAN, 0.0),
        *((attack, epsilon) for attack in (*FIVE, WORST_CASE) for epsilon in (0.1, 0.3)),
    ]
    [cell] = [cell for cell in base["cells"] if (cell["attack"], cell["epsilon"]) == ("ifgsm", 0.3)]
    low, high = wilson_interval(10, 100)
    assert cell == {
        **{"attack": "ifgsm", "epsilon": 0.3, "accuracy": 10.0, "deviation": None, "seeds": 1},
        **{"low": 100 * low, "high": 100 * high, "strongest": True, "only": None, "paper": 0.7},
        "difference": pytest.approx(9.3),
    }
    [worst] = [c for c in base["cells"] if (c["attack"], c["epsilon"]) == (WORST_CASE, 0.1)]
    assert (worst["paper"], worst["difference"], worst["strongest"]) == (None, None, False)
    assert any(line.startswith("Budget: members 3") for line in table["caption"])


class TestFigures:
    def test_coherence_histograms_are_densities_about_their_means(self):
        figure = coherence_figure([_record(), _record(seed=1, coherence=(0.9,)), _bare("T_Div")])
        (axes,) = figure.subfigs[0].axes
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == [f"T_Base, mean {(0.1 + 0.2 + 0.6 + 0.9) / 4:.2f}"]
        assert axes.get_xlim() == pytest.approx((-0.5, 1.0))  # -1/(N-1), N = 3
        (mean,) = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
        assert mean.get_xdata()[0] == pytest.approx(0.45)

    def test_pair_cosines_are_written_in_the_cells(self):
        second = _record(seed=1, pair_cosines=((1.0, 0.3, 0.25), (0.3, 1.0, 0.125), (0.25, 0.125, 1.0)))
        axes, _colours = pair_cosine_figure([_record(), second]).subfigs[0].axes
        assert axes.get_title() == "T_Base"
        assert [text.get_text() for text in axes.texts[:3]] == ["1.00", "0.40", "0.00"]

    def test_pair_cosines_of_two_shapes_are_refused(self):
        with pytest.raises(ValueError, match="Expected pair cosines of one shape for all seeds of T_Base"):
            pair_cosine_figure([_record(), _record(seed=1, pair_cosines=((1.0,),))])

    def test_accuracy_lines_and_bars(self):
        figure = accuracy_figure([_record(), DIV])
        panels = figure.subfigs[0].axes
        assert [axes.get_title() for axes in panels] == list(FIVE)
        base, div = panels[0].containers
        assert list(base.lines[0].get_ydata()) == pytest.approx([99, 90, 20])
        assert list(div.lines[0].get_ydata()) == pytest.approx([99, 95, 60])
        bars = base.lines[2][0].get_segments()
        assert [bar[:, 1] / 100 for bar in bars] == [
            pytest.approx(wilson_interval(correct, 100)) for correct in (99, 90, 20)
        ]

    def test_table_picture_holds_the_numbers(self):
        (axes,) = table_figure([_record(), DIV]).axes
        texts = [text.get_text() for text in axes.texts]
        assert r"$\mathbf{70.0}$ / $\mathbf{10.0}$" in texts
        assert "95.0 / 60.0" in texts
        assert any(text.startswith("Budget: members 3") for text in texts)
        assert any("seed: 0" in text for text in texts)
        assert not any("paper" in text for text in texts if "Budget" not in text)

    def test_table_picture_against_the_paper(self):
        # conv3, T_Base: clean 99.4, FGSM 91.4 / 9.7, I-FGSM 86.1 / 0.7; ours 99, 90 / 20, 70 / 10.
        records = [_record(), _record("T_Noise")]
        (axes,) = table_figure(records, against_paper=True).axes
        texts = [text.get_text() for text in axes.texts]
        labels = [text for text in texts if text.startswith("T_")]
        assert labels == ["T_Base, ours", "T_Base, paper", "T_Base, difference", "T_Noise"]
        assert {"99.4", "91.4 / 9.7", "86.1 / 0.7", "-0.4", "-1.4 / +10.3", "-16.1 / +9.3"} <= set(texts)

    def test_table_picture_of_clean_images_alone(self):
        (axes,) = table_figure([_bare()]).axes
        assert "99.0" in [text.get_text() for text in axes.texts]

    @pytest.mark.parametrize("draw", [coherence_figure, pair_cosine_figure, accuracy_figure])
    def test_nothing_to_draw_is_said(self, draw):
        with pytest.raises(ValueError, match=r"Expected records with .* Received: none"):
            draw([_bare()])

    def test_targets_of_the_paper_keep_their_colours(self):
        assert style.target_style("T_Div", ["T_Div"]) == style.target_style(
            "T_Div", ["mine", "T_Base", "T_Div"]
        )
        names = [*paper.TARGETS, "mine"]
        assert len({style.target_style(name, names) for name in names}) == len(names)


class TestWriteReport:
    def test_files_are_whole_and_identical_when_written_twice(self, tmp_path):
        records = [_record(worst=(50, 5)), DIV]
        first = report.write_report(tmp_path / "a" / "b", records, against_paper=True)
        second = report.write_report(tmp_path / "c", records, against_paper=True)
        assert {name: path.name for name, path in first.items()} == {
            "report": "report.md",
            "table": "table.csv",
            "data": "table.json",
            "picture": "table.png",
            "accuracy": "accuracy.png",
            "coherence": "coherence.png",
            "pair_cosines": "pair_cosines.png",
        }
        for name, path in first.items():
            assert path.read_bytes() == second[name].read_bytes()
        assert sorted((tmp_path / "c").iterdir()) == sorted(second.values())  # no temporary files are left

    def test_pictures_are_png_files(self, tmp_path):
        paths = report.write_report(tmp_path, [_record(), DIV])
        for name in ("picture", "accuracy", "coherence", "pair_cosines"):
            content = paths[name].read_bytes()
            assert content[:8] == b"\x89PNG\r\n\x1a\n"
            assert content[-8:-4] == b"IEND"
            width, height = struct.unpack(">II", content[16:24])
            assert 400 < width < 4000
            assert 300 < height < 4000
            assert b"tIME" not in content

    def test_markdown_states_what_was_run_and_how_to_read_it(self, tmp_path):
        text = report.write_report(tmp_path, [_record(), DIV])["report"].read_text(encoding="utf-8")
        for part in (
            "python -m divtf.main --model=conv3",
            "0123abc",
            "seed: 0",
            "REDUCED",
            "no white-box",
            "Saturated",
        ):
            assert part in text
        assert [line.split("](")[1] for line in text.splitlines() if line.startswith("![")] == [
            "accuracy.png)",
            "coherence.png)",
            "pair_cosines.png)",
        ]
        assert (tmp_path / "table.csv").read_text(encoding="utf-8") == table_data.table_csv([_record(), DIV])

    def test_bare_records_still_give_a_report(self, tmp_path):
        paths = report.write_report(tmp_path, [_bare()])
        assert set(paths) == {"report", "table", "data", "picture"}
        assert "![" not in paths["report"].read_text(encoding="utf-8")
        paths = report.write_report(
            tmp_path, [_bare("T_Base"), _record("T_Div", {"fgsm": (95,)}, coherence=())]
        )
        assert set(paths) == {"report", "table", "data", "picture", "accuracy", "pair_cosines"}

    def test_report_comes_last_so_that_where_it_is_all_is(self, tmp_path, monkeypatch):
        written = []
        monkeypatch.setattr(files, "write_file", lambda path, content: written.append(path.name))
        report.write_report(tmp_path, [_record(), DIV])
        assert written[-1] == report.REPORT and len(written) == 7

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = report.write_report(tmp_path, [_record()])["table"]
        before = path.read_bytes()
        monkeypatch.setattr(files.os, "replace", _fail)
        with pytest.raises(OSError, match="disk"):
            report.write_report(tmp_path, [DIV])
        assert path.read_bytes() == before
        assert not list(tmp_path.glob(".*"))


def _fail(source, target):
    raise OSError("disk")


def loaded_by(module, *names):
    """Which of the modules of these names a new process has loaded once it has imported a module."""
    code = f"import sys, {module}; print(*[name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_no_tensorflow_and_no_pyplot_are_imported():
    heavy = ("tensorflow", "keras", "matplotlib.pyplot")
    assert loaded_by("divtf.reporting.published", *heavy, "matplotlib") == ["matplotlib"]


@pytest.mark.parametrize("module", ["divtf", "divtf.commands.main", "divtf.reporting.plain_text"])
def test_libraries_of_tables_and_pictures_wait_until_one_is_made(module):
    assert not loaded_by(module, "scipy", "pandas", "matplotlib")


def test_nan_free_bounds():
    # An accuracy of 0 or 1 has a bound on itself: bars of length 0, never negative ones.
    figure = accuracy_figure([_record(correct={"fgsm": (100, 0)}, clean=100)])
    bars = figure.subfigs[0].axes[0].containers[0].lines[2][0].get_segments()
    assert all(
        math.isfinite(value) and low <= high
        for low, high in (bar[:, 1] for bar in bars)
        for value in (low, high)
    )


def test_attacks_of_one_name_that_differ_in_their_parts_alone_are_told_by_them():
    """Pieces of one's own may have no settings."""
    results = [
        TransferResult("T_Div", "S", "mine", 0.1, hits, 100, settings={"steps": 1, "parts": parts})
        for hits, parts in ((79, ["One()"]), (100, ["Other()", "Last()"]))
    ]
    (record,) = labels.labelled([_record(results=tuple(results))])
    assert [result.attack for result in record.results] == ["mine, One()", "mine, Other(); Last()"]
