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

from crashchat import metrics
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
    assert (tally.clips, tally.left_out, tally.unparsed) == (wanted["N"], 42, 0)
    for ours, theirs in {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "F1": "F1"}.items():
        assert found[ours] == pytest.approx(wanted[theirs], abs=1e-6)


@recorded
@pytest.mark.parametrize(("task", "key"), [("crash_description", "caption"), ("causal_reasoning", "cause"), ("prevention_reasoning", "text")])
def test_text_equals_the_record(task, key):
    rows = predictions(task)
    tally = metrics.text_tally([row[f"pred_{key}"] for row in rows], [row[f"gt_{key}"] for row in rows], "published")
    found, wanted = tally.scores(), printed(task)
    assert tally.clips == wanted["N"] and tally.clips + tally.left_out == 600
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
    assert (tally.clips, tally.unparsed) == (wanted["N"], 31)
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
