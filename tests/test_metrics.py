"The published metrics repeat the published numbers; the honest reading lets nothing out of the denominator."

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

from crashchat import metrics, text_metrics
from crashchat.core import CrashchatError, Span

SHARED = Path(__file__).parents[2] / "shared"
RECORDED = SHARED / "reference" / "metrics"
ANNOTATED = SHARED / "annotations" / "crashchat"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded prediction files are not beside this checkout")
annotated = pytest.mark.skipif(not ANNOTATED.is_dir(), reason="the real annotations are not beside this checkout")
YES_NO = {"Yes": True, "No": False, None: None}


def predictions(task: str) -> list[dict]:
    "One recorded prediction file."
    return json.loads((RECORDED / f"{task}.json").read_text())


def printed(task: str) -> dict[str, float]:
    "What the published script prints for it."
    return json.loads((RECORDED / "reference_scores.json").read_text())[task]


def real(task: str, split: str) -> dict[str, str]:
    "Clip -> answer text of a real annotation file."
    path = ANNOTATED / f"crashchat_dada_video_total_{task}_{split}.json"
    return {row["video"][0]: row["conversations"][1]["value"] for row in json.loads(path.read_text())}


def span(text: str) -> Span:
    "The two numbers of an annotated interval."
    return Span(*map(float, re.findall(r"[\d.]+\d", text)))


def seconds(text: str) -> float:
    "The one number of an annotated time."
    return float(re.findall(r"\d+\.\d", text)[0])


# ---- the published reading, against what the published scripts print


@recorded
def test_recognition_equals_the_record():
    rows = predictions("crash_recognition")
    tally = metrics.recognition_tally([YES_NO[row["pred_label"]] for row in rows], [YES_NO[row["gt_label"]] for row in rows], "published")
    found, wanted = tally.scores(), printed("crash_recognition")
    assert (tally.clips, tally.left_out, tally.unparsed) == (wanted["N"], len(rows) - wanted["N"], 0)
    for ours, theirs in {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "F1": "F1"}.items():
        assert found[ours] == pytest.approx(wanted[theirs], abs=1e-6)


@recorded
@pytest.mark.parametrize(("task", "key"), [("crash_description", "caption"), ("causal_reasoning", "cause"), ("prevention_reasoning", "text")])
def test_text_equals_the_record(task, key):
    rows = predictions(task)
    tally = metrics.text_tally([row[f"pred_{key}"] for row in rows], [row[f"gt_{key}"] for row in rows], "published")
    found, wanted = tally.scores(), printed(task)
    assert tally.clips == wanted["N"] and tally.clips + tally.left_out == len(rows)
    assert found["BLEU"] == pytest.approx(wanted["BLEU"], abs=1e-6)
    for name in ("1", "2", "L"):
        for part, letter in ((" precision", "p"), (" recall", "r"), ("", "f")):
            assert found[f"ROUGE-{name}{part}"] == pytest.approx(wanted[f"rouge{name}_{letter}"], abs=1e-6)


@recorded
def test_localization_equals_the_record():
    rows = predictions("crash_localization")
    said = [None if "second" not in row["raw_response"] else Span(*sorted((row["pred_start"], row["pred_end"]))) for row in rows]
    truth = [Span(row["gt_start"], row["gt_end"]) for row in rows]
    tally = metrics.localization_tally(said, truth, "published")
    found, wanted = tally.scores(), printed("crash_localization")
    assert (tally.clips, tally.unparsed) == (wanted["N"], said.count(None)) and None in said
    for ours, theirs in {"mIoU": "mIoU", "R1@0.3": "AP@30", "R1@0.5": "AP@50", "R1@0.7": "AP@70"}.items():
        assert found[ours] == pytest.approx(wanted[theirs], abs=1e-6)


@recorded
@annotated
def test_pre_crash_equals_the_record():
    rows, spans = predictions("pre_crash_localization"), real("crash_localization", "val")
    said = [None if "second" not in row["raw_response"] else row["pred_time"] for row in rows]
    cues, crashes = [row["gt_time"] for row in rows], [span(spans[row["video_path"]]).start_s for row in rows]
    tally = metrics.pre_crash_tally(said, cues, crashes, "published")
    found, wanted = tally.scores(), printed("pre_crash_localization")
    assert (tally.clips, tally.left_out) == (wanted["Num_samples"], wanted["bad_gt_tta_count"])
    names = {"mIoU": "mIoU", "R1@0.3": "AP@30", "R1@0.5": "AP@50", "R1@0.7": "AP@70",
             "TTA truth [s]": "mTTA_gt", "TTA predicted [s]": "mTTA_pred", "TTA MAE [s]": "TTA_MAE"}
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(wanted[theirs], abs=1e-6)
    assert metrics.pre_crash_tally(said, cues, crashes, "honest").scores()["TTA MAE [s]"] > wanted["TTA_MAE"]


@annotated
@pytest.mark.parametrize(("task", "constant", "bleu", "rouge"), [
    ("cause_reasoning", "No accident, no cause.", 0.1620, 0.3725),
    ("prevention_reasoning", "No accident, no prevention needed.", 0.0030, 0.3707),
    ("crash_description", "no collision.", 0.0025, 0.3681),
])
def test_constant_texts_on_the_real_test_set(task, constant, bleu, rouge):
    truth = list(real(task, "test").values())
    found = metrics.text_tally([constant] * len(truth), truth, "published").scores()
    assert (found["BLEU"], found["ROUGE-L"]) == pytest.approx((bleu, rouge), abs=6e-5)


@annotated
def test_constant_times_on_the_real_test_set():
    spans, cues = real("crash_localization", "test"), real("pre_crash_localization", "test")
    truth = [span(text) for text in spans.values()]
    assert metrics.localization_tally([Span(3.5, 7.5)] * len(truth), truth).scores()["mIoU"] == pytest.approx(0.242, abs=5e-4)
    cue_s = [seconds(cues[video]) for video in spans]
    tally = metrics.pre_crash_tally([2.7] * len(truth), cue_s, [one.start_s for one in truth])
    assert (tally.clips, round(tally.scores()["MAE [s]"], 2)) == (1162, 1.86)


# ---- the honest reading


def test_an_unread_answer_is_wrong_and_stays():
    tally = metrics.recognition_tally([None, True, False], [True, True, False])
    assert (tally.clips, tally.unparsed, tally.left_out) == (3, 1, 0)
    found = tally.scores()
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert (found["precision"], found["recall"]) == (1.0, 0.5)  # a miss of a crash, no false alarm

    texts = metrics.text_tally([None, " ", "car hits a truck now"], ["car hits a truck now"] * 3)
    assert (texts.clips, texts.unparsed) == (3, 2)
    assert texts.scores()["ROUGE-L"] == pytest.approx(1 / 3)
    assert texts.scores()["BLEU"] < 0.5  # the two silent clips shorten the prediction: brevity

    spans = metrics.localization_tally([None, Span(0, 1)], [Span(0, 1)] * 2)
    assert (spans.clips, spans.unparsed, spans.scores()["mIoU"]) == (2, 1, 0.5)


def test_published_reading_scores_an_unread_time_as_zero_and_honest_never_does():
    "An annotated cue at 0.0 makes an unreadable answer a hit in the published files."
    assert metrics.pre_crash_tally([None], [0.0], [2.0], "published").scores()["mIoU"] == 1
    found = metrics.pre_crash_tally([None], [0.0], [2.0]).scores()
    assert (found["mIoU"], found["MAE [s]"]) == (0, 2.0)
    assert metrics.localization_tally([None], [Span(0, 1)], "published").scores()["mIoU"] == 0


@given(st.floats(0, 20), st.floats(0, 20), st.floats(0, 20))
def test_silence_never_costs_less_than_a_guess_within_the_range(guess, cue, crash):
    range_end = max(cue, crash)
    silent = metrics.pre_crash_tally([None, cue], [cue] * 2, [crash] * 2).scores()
    spoken = metrics.pre_crash_tally([min(guess, range_end), cue], [cue] * 2, [crash] * 2).scores()
    assert silent["MAE [s]"] >= spoken["MAE [s]"] and silent["mIoU"] <= spoken["mIoU"]


def test_a_cue_after_the_crash_stays_only_in_the_honest_count():
    said, cue, crash = [1.0, 4.8], [2.0, 5.0], [4.0, 5.0]
    published = metrics.pre_crash_tally(said, cue, crash, "published")
    honest = metrics.pre_crash_tally(said, cue, crash)
    assert (published.clips, published.left_out, honest.clips, honest.left_out) == (1, 1, 2, 0)
    assert honest.per_clip[:, 0].tolist() == [0.0, 1.0]  # too early; within the half second before the cue


def test_both_readings_agree_where_everything_can_be_read():
    said, actual = ["car hits car", "no collision."], ["truck hits car", "no collision."]
    assert metrics.text_tally(said, actual).scores() == metrics.text_tally(said, actual, "published").scores()
    assert metrics.recognition_tally([True, False], [False, False]).scores() == \
        metrics.recognition_tally([True, False], [False, False], "published").scores()


def test_unequal_lengths_are_refused():
    for broken in (
        lambda: metrics.recognition_tally([True], []),
        lambda: metrics.text_tally(["a"], []),
        lambda: metrics.localization_tally([Span(0, 1)], []),
        lambda: metrics.pre_crash_tally([1.0], [1.0], []),
    ):
        with pytest.raises(ValueError):
            broken()


# ---- definitions


def test_macro_average_by_hand():
    found = metrics.recognition_tally([True, True, False, False], [True, False, False, False]).scores()
    assert (found["precision"], found["recall"]) == (0.5, 1.0)
    assert found["macro precision"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["macro recall"] == pytest.approx((1.0 + 2 / 3) / 2)
    assert found["macro F1"] == pytest.approx((2 / 3 + 0.8) / 2)


def test_one_class_predicted_gives_numbers_not_nan():
    found = metrics.recognition_tally([True, True], [True, False]).scores()
    assert found["macro F1"] == pytest.approx(1 / 3) and all(np.isfinite(list(found.values())))


@given(st.lists(st.tuples(*[st.lists(st.sampled_from("car truck hits a parked".split()), max_size=7)] * 2), min_size=1, max_size=8))
def test_bleu_equals_nltk(pairs):
    pairs = [(said, actual or ["car"]) for said, actual in pairs]
    ours = metrics.bleu_formula(np.sum([metrics.bleu_counts(" ".join(a), " ".join(b)) for a, b in pairs], axis=0))
    theirs = corpus_bleu([[b] for _, b in pairs], [a for a, _ in pairs], smoothing_function=SmoothingFunction().method1)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-12)


spans = st.tuples(st.floats(0, 60), st.floats(0, 60)).map(lambda ends: Span(*sorted(ends)))


@given(spans, spans)
def test_span_iou_is_symmetric_and_bounded(one, other):
    assert metrics.span_iou(one, other) == metrics.span_iou(other, one)
    assert 0 <= metrics.span_iou(one, other) <= 1
    assert metrics.span_iou(one, one) == 1
    many = metrics.span_ious(np.array([[one.start_s, one.end_s]] * 2), np.array([other.start_s, other.end_s]))
    assert many.tolist() == [one.iou(other)] * 2


@pytest.mark.parametrize(("pred", "truth", "iou"), [
    (Span(1, 3), Span(3, 5), 0.0),      # touching
    (Span(0, 1), Span(4, 5), 0.0),      # a gap is not negative overlap
    (Span(2, 2), Span(1, 3), 0.0),      # an instant inside a span
    (Span(2, 2), Span(2, 2), 1.0),      # equal instants
    (Span(1, 3), Span(0, 4), 0.5),      # nested
])
def test_span_iou_edges(pred, truth, iou):
    assert metrics.span_iou(pred, truth) == iou


@pytest.mark.parametrize(("pred", "iou"), [(2.49, 0), (2.5, 1), (2.99, 1), (3.0, 1), (4.0, 0.5), (4.99, 0.005), (5.0, 0), (9.0, 0)])
def test_tta_rules(pred, iou):
    assert float(metrics.tta_ious(np.array(pred), np.array(3.0), np.array(5.0))) == pytest.approx(iou)


# ---- intervals


def test_bootstrap_is_seeded_and_brackets_the_value():
    rng = np.random.default_rng(3)
    truth = [Span(4, 8)] * 200
    tally = metrics.localization_tally([Span(4, 8 + late) for late in rng.uniform(0, 8, 200)], truth)
    one, same, other = (metrics.bootstrap_intervals(tally, 500, seed) for seed in (1, 1, 2))
    assert one == same != other
    low, high = one["mIoU"]
    assert low < tally.scores()["mIoU"] < high
    spread = tally.per_clip[:, 0].std() / np.sqrt(200)
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_bootstrap_of_corpus_bleu_equals_resampling_the_texts():
    said = ["car hits a parked car now", "truck hits car", "no collision.", "car hits a curb here again"]
    actual = ["car hits a parked car", "car hits car", "no collision.", "car hits a curb here"]
    tally = metrics.text_tally(said, actual)
    drawn = np.random.default_rng(5).multinomial(4, np.full(4, 1 / 4), size=20)
    values = [metrics.text_tally(*zip(*[(said[i], actual[i]) for i in range(4) for _ in range(row[i])], strict=True)).scores()["BLEU"]
              for row in drawn]
    low, high = metrics.bootstrap_intervals(tally, 20, seed=5)["BLEU"]
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_no_clips_give_no_number():
    assert np.isnan(metrics.localization_tally([], []).scores()["mIoU"])
    assert np.isnan(metrics.pre_crash_tally([], [], []).scores()["MAE [s]"])
    with pytest.raises(ValueError, match="0 clips"):
        metrics.bootstrap_intervals(metrics.text_tally([], []))


# ---- errors in seconds, parse failures, joined tallies


def test_errors_of_start_and_end_by_hand():
    said = [Span(1.0, 4.0), Span(3.2, 9.0), None]
    truth = [Span(1.5, 4.0), Span(2.7, 6.0), Span(2.0, 8.0)]
    found = metrics.localization_tally(said, truth).scores()
    assert found["start MAE [s]"] == pytest.approx((0.5 + 0.5 + 6.0) / 3)  # the last is charged the worse end of 0 .. 8 s
    assert found["end MAE [s]"] == pytest.approx((0.0 + 3.0 + 8.0) / 3)
    assert [found[f"start within {s} s"] for s in ("0.5", "1", "2")] == pytest.approx([2 / 3] * 3)
    assert [found[f"end within {s} s"] for s in ("0.5", "1", "2")] == pytest.approx([1 / 3] * 3)
    published = metrics.localization_tally(said, truth, "published").scores()
    assert published["start MAE [s]"] == pytest.approx((0.5 + 0.5 + 2.0) / 3)  # read as 0.0


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30), st.floats(0, 30)), min_size=1, max_size=6))
def test_silence_never_costs_less_than_a_span_within_the_range(rows):
    truth = [Span(*sorted(row[:2])) for row in rows]
    latest = max(one.end_s for one in truth)
    guesses = [Span(min(row[2], latest), latest) for row in rows]
    silent, spoken = (metrics.localization_tally(said, truth).scores() for said in ([None] * len(rows), guesses))
    assert silent["start MAE [s]"] >= spoken["start MAE [s]"] - 1e-9 and silent["end MAE [s]"] >= spoken["end MAE [s]"] - 1e-9
    assert silent["end within 2 s"] == 0


def test_pre_crash_shares_within_a_limit():
    found = metrics.pre_crash_tally([2.5, 4.0, 9.0, None], [3.0] * 4, [5.0] * 4).scores()
    assert [found[f"within {s} s"] for s in ("0.5", "1", "2")] == [0.25, 0.5, 0.5]


def test_a_decimal_that_binary_cannot_hold_is_still_within_the_limit():
    assert 1.1 - 0.6 > 0.5
    assert metrics.error_columns(np.array(1.1), np.array(0.6), 9.0)[1] == 1


def test_parse_failures_are_a_figure_with_an_interval():
    tally = metrics.parse_failures([True] * 10 + [False] * 30)
    assert tally.scores() == {"parse failure rate": 0.25} and tally.unparsed == 10
    low, high = metrics.bootstrap_intervals(tally)["parse failure rate"]
    assert 0.1 < low < 0.25 < high < 0.45


def test_joined_tallies_score_as_each_alone_and_refuse_other_clips():
    said, actual = ["car hits car", None, "no collision."], ["car hits truck", "car hits car", "no collision."]
    parts = metrics.text_tally(said, actual), metrics.parse_failures([False, True, False])
    whole = metrics.joined(*parts)
    assert whole.scores() == {**parts[0].scores(), **parts[1].scores()} and whole.unparsed == 1
    assert metrics.bootstrap_intervals(whole, 50)["BLEU"] == metrics.bootstrap_intervals(parts[0], 50)["BLEU"]
    with pytest.raises(ValueError, match="cannot be joined"):
        metrics.joined(parts[0], metrics.parse_failures([False]))


# ---- METEOR, CIDEr-D, TF-IDF cosine, exact match, closed-set accuracy


class KnowsNothing:
    "A WordNet without a word in it."

    def synsets(self, word):
        return []


class Synonyms:
    "A WordNet in which a van is a truck."

    def synsets(self, word):
        lemma = type("Lemma", (), {"name": lambda self: "truck"})()
        return [type("Synset", (), {"lemmas": lambda self: [lemma]})()] if word == "van" else []


VOCABULARY = "car cars hit hits hitting truck a the parked slowly ego-car driver's".split()


@pytest.fixture
def no_wordnet(monkeypatch):
    "METEOR as on a machine without WordNet."
    known = text_metrics.Lexicon()
    monkeypatch.setattr(text_metrics, "lexicon", lambda: known)
    text_metrics.meteor.cache_clear()
    yield
    text_metrics.meteor.cache_clear()


def test_meteor_equals_nltk_on_many_pairs(no_wordnet):
    from nltk.translate.meteor_score import single_meteor_score

    rng = np.random.default_rng(7)
    for _ in range(1000):
        said, actual = (" ".join(rng.choice(VOCABULARY, rng.integers(0, 15))) for _ in range(2))
        theirs = single_meteor_score(text_metrics.words(actual), text_metrics.words(said), wordnet=KnowsNothing())
        assert text_metrics.meteor(said, actual) == pytest.approx(theirs, abs=1e-12)


def test_meteor_by_hand(no_wordnet):
    "Three of four words said are among three annotated ones, in two pieces; the stem of hit counts."
    precision, recall = 3 / 4, 3 / 3
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    assert text_metrics.meteor("the car hit truck", "car hits truck") == pytest.approx(mean * (1 - 0.5 * (1 / 3) ** 3))
    scattered = text_metrics.meteor("truck the car hit", "car hits truck")
    assert scattered == pytest.approx(mean * (1 - 0.5 * (2 / 3) ** 3))


def test_meteor_says_in_its_name_whether_it_knew_synonyms(monkeypatch):
    scores = {}
    for known in (text_metrics.Lexicon(), text_metrics.Lexicon(Synonyms())):
        monkeypatch.setattr(text_metrics, "lexicon", lambda known=known: known)
        text_metrics.meteor.cache_clear()
        corpus = text_metrics.read_corpus(("truck hits car",))
        scores |= text_metrics.meaning_tally(["van hits car"], ["truck hits car"], corpus).scores()
    text_metrics.meteor.cache_clear()
    assert scores["METEOR"] > scores["METEOR (no synonyms)"] > 0


def test_cider_by_hand():
    "In a set of four answers, weights are log(4 / answers that hold the run)."
    corpus = text_metrics.read_corpus(("car hits car", "car hits truck", "bus stops", "no collision."))
    car, hits, truck, rare = np.log(4 / 2), np.log(4 / 2), np.log(4 / 1), np.log(4)
    one = (car * car + hits * hits) / (np.sqrt((2 * car) ** 2 + hits**2) * np.sqrt(car**2 + hits**2 + truck**2))
    both, pair = np.log(4 / 2), rare  # "car hits" stands in two answers, "hits car" and "hits truck" in one
    two = both * both / (both**2 + pair**2)
    assert text_metrics.cider("car hits car", "car hits truck", corpus) == pytest.approx(10 / 4 * (one + two))
    shorter = (car**2 + hits**2) / (np.sqrt(car**2 + hits**2) * np.sqrt(car**2 + hits**2 + truck**2)) + both / np.sqrt(both**2 + pair**2)
    assert text_metrics.cider("car hits", "car hits truck", corpus) == pytest.approx(10 / 4 * shorter * np.exp(-1 / 72))
    assert text_metrics.cider("Bus stops.", "bus stops", corpus) == pytest.approx(5)  # two lengths of four
    long = text_metrics.read_corpus(("a driver looks away", "b"))
    assert text_metrics.cider("a driver looks away", "a driver looks away", long) == pytest.approx(10)


def test_a_run_said_more_often_than_annotated_gains_nothing():
    corpus = text_metrics.read_corpus(("car hits truck", "no collision."))
    once, often = (text_metrics.cider(said, "car hits truck", corpus) for said in ("car hits truck", "car car car"))
    assert often < once / 5


def test_in_a_set_of_one_answer_no_word_is_rare():
    assert text_metrics.cider("no collision.", "no collision.", text_metrics.read_corpus(("no collision.",) * 3)) == 0


def test_tfidf_cosine_by_hand():
    "One word of one letter has two pieces: itself marked, and its one run of three."
    corpus = text_metrics.read_corpus(("a", "b"))
    weight = 1 + np.log(3 / 2)
    assert text_metrics.pieces("a") == {"<a>": 2}
    assert text_metrics.tfidf_cosine("a b", "a", corpus) == pytest.approx(2 * weight / np.hypot(2 * weight, 2 * weight))
    assert text_metrics.tfidf_cosine("A.", "a", corpus) == pytest.approx(1)
    assert text_metrics.tfidf_cosine("", "a", corpus) == text_metrics.tfidf_cosine("c", "a", corpus) == 0


@pytest.mark.parametrize(("text", "plain"), [
    ("No collision.", "no collision"), ("  Car\n hits\tcar !? ", "car hits car"), ("U.S. car", "u.s. car"), ("...", ""), ("\u00c9t\u00c9", "\u00e9t\u00e9"),
])
def test_normalised(text, plain):
    assert text_metrics.normalised(text) == plain


CLOSED = ("car hits car", "car hits truck", "ego-car hits a cyclist", "no collision")


@pytest.mark.parametrize(("text", "nearest"), [
    ("Car hits truck.", "car hits truck"),
    ("a car then hits the truck", "car hits truck"),
    ("hits", "car hits car"),               # as near to another: the first in sorted order
    ("car car hits", "car hits car"),       # words count as often as both have them
    ("cyclist", "ego-car hits a cyclist"),
    ("COLLISION", "no collision"),
    ("zebra", None), ("", None), ("...", None),
])
def test_nearest_on_the_closed_list(text, nearest):
    assert text_metrics.nearest_answers([text], CLOSED) == {text: nearest}


@given(st.lists(st.text("ab .", max_size=8), max_size=5), st.lists(st.text("ab .", min_size=1, max_size=8), min_size=1, max_size=5))
def test_nearest_equals_trying_every_answer(texts, answers):
    from collections import Counter

    closed = tuple(sorted({text_metrics.normalised(text) for text in answers}))
    for text, found in text_metrics.nearest_answers(texts, closed).items():
        said = Counter(text_metrics.words(text))
        shares = [2 * (said & other).total() / max(1, said.total() + other.total()) for other in (Counter(text_metrics.words(a)) for a in closed)]
        if text and text_metrics.normalised(text) in closed:
            assert found == text_metrics.normalised(text)
        else:
            assert found == (closed[int(np.argmax(shares))] if max(shares) else None)


def test_closed_set_accuracy_counts_silence_and_needs_the_annotated_answer():
    truth = ["car hits car", "car hits truck", "no collision."]
    corpus = text_metrics.read_corpus(tuple(truth), ("ego-car hits a cyclist",))
    assert corpus.closed == CLOSED and corpus.clips == 3
    tally = text_metrics.meaning_tally(["Car hits car!", "some car hits some truck", None], truth, corpus)
    found = tally.scores()
    assert (tally.clips, tally.unparsed) == (3, 1)
    assert (found["exact match"], found["closed-set accuracy"]) == pytest.approx((1 / 3, 2 / 3))
    spoken = text_metrics.meaning_tally(["Car hits car!", "some car hits some truck", None], truth, corpus, "published")
    assert (spoken.clips, spoken.left_out, spoken.scores()["closed-set accuracy"]) == (2, 1, 1)
    elsewhere = text_metrics.meaning_tally(["cyclist"], ["car hits car"], corpus).scores()  # nearest to an answer of another clip
    assert elsewhere["closed-set accuracy"] == 0
    with pytest.raises(ValueError):
        text_metrics.meaning_tally(["a"], [], corpus)
    assert np.isnan(text_metrics.meaning_tally([], [], corpus).scores()["CIDEr-D"])


@annotated
def test_the_real_answers_are_closed_lists():
    for task, distinct, closed in (("crash_description", 50, 50), ("cause_reasoning", 96, 96), ("prevention_reasoning", 102, 95)):
        test, val = (tuple(real(task, split).values()) for split in ("test", "val"))
        assert len({*test, *val}) == distinct and len(text_metrics.read_corpus(test, val).closed) == closed


# ---- BERTScore on a tiny random model


def tiny_roberta(folder: Path) -> None:
    "Write a random two-layer RoBERTa with a byte-level tokenizer."
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    letters = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = dict(bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>")
    PreTrainedTokenizerFast(tokenizer_object=raw, **names).save_pretrained(folder)
    config = RobertaConfig(vocab_size=len(letters), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                           intermediate_size=32, max_position_embeddings=130)
    RobertaModel(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roberta")
    tiny_roberta(folder)
    return metrics.load_bert(str(folder), layer=1)


def test_bert_score_by_hand(bert):
    "Each token to its most similar one; special tokens can be matched but carry no weight; a space goes before the text."
    import torch

    tokenizer, model = bert.tokenizer, bert.model
    states = []
    for text in ("car", "cat now"):
        ids = torch.tensor([tokenizer(" " + text)["input_ids"]])
        with torch.inference_mode():
            found = model(ids, output_hidden_states=True).hidden_states[1][0]
        states.append(found / found.norm(dim=-1, keepdim=True))
    cosine = states[0] @ states[1].T
    precision, recall = cosine.max(1).values[1:-1].mean().item(), cosine.max(0).values[1:-1].mean().item()
    found = metrics.bert_tally(["car"], ["cat now"], bert).scores()
    assert found["BERTScore precision"] == pytest.approx(precision, abs=1e-5)
    assert found["BERTScore recall"] == pytest.approx(recall, abs=1e-5)
    assert found["BERTScore"] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)


def test_bert_score_of_equal_silent_and_long_texts(bert):
    assert metrics.bert_tally(["car hits"], ["car hits"], replace(bert, layer=2)).scores()["BERTScore"] == pytest.approx(1, abs=1e-5)
    honest = metrics.bert_tally([None, "car"], ["car", "car"], bert)
    assert (honest.clips, honest.unparsed) == (2, 1)
    assert honest.scores()["BERTScore"] == pytest.approx(0.5, abs=1e-5)
    published = metrics.bert_tally([None, "car"], ["car", "car"], bert, "published")
    assert (published.clips, published.left_out) == (1, 1)
    assert np.isfinite(metrics.bert_tally(["car " * 200], ["car"], bert).scores()["BERTScore"])  # longer than the model reads


def test_bert_score_does_not_depend_on_padding(bert):
    together = metrics.bert_tally(["car", "truck hits a long row of cars"], ["cat", "a truck"], bert).per_clip
    alone = metrics.bert_tally(["car"], ["cat"], bert).per_clip
    assert together[0] == pytest.approx(alone[0], abs=1e-5)


def test_bert_model_that_cannot_be_loaded_or_is_too_shallow(tmp_path):
    with pytest.raises(CrashchatError, match="bert_model="):
        metrics.load_bert(str(tmp_path))
    tiny_roberta(tmp_path)
    with pytest.raises(CrashchatError, match="bert_layer=17 .* has 2 layers"):
        metrics.load_bert(str(tmp_path))
