"Temperatures that undo a known exaggeration, errors that fall on fresh clips, and what happens where nothing can be learnt."

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from crashchat import calibration as cal
from crashchat import cli
from crashchat.cases import write_cases
from crashchat.core import Answer, Belief, Case, CrashchatError, Span, Value
from crashchat.tasks import ALL, CALIBRATION_FILE, Calibration, agree, read_calibration, sureness, write_calibration

Pairs = list[tuple[Answer, Value]]


def answer(task: str, value: Value, belief: Belief | None) -> Answer:
    return Answer("a", task, "?", str(value), value, "fake", belief=belief)


def belief_in(weights: np.ndarray, values: list[Value], temperature: float, rest: float = 0.0) -> Belief:
    "A belief whose probabilities have been sharpened by a temperature, sorted."
    held = np.array([*weights, rest]) / (weights.sum() + rest)
    sharp = held**temperature / (held**temperature).sum()
    order = np.argsort(-sharp[:-1], kind="stable")
    return Belief(tuple(values[place] for place in order), tuple(float(sharp[place]) for place in order), float(sharp[-1]))


def recognitions(count: int, seed: int, temperature: float) -> Pairs:
    "Truth drawn from what the model believes before it is sharpened."
    draw = np.random.default_rng(seed)
    pairs: Pairs = []
    for chance in 1 / (1 + np.exp(-draw.normal(0, 1.5, count))):
        belief = belief_in(np.array([chance, 1 - chance]), [True, False], temperature)
        pairs.append((answer("crash_recognition", belief.values[0], belief), bool(draw.random() < chance)))
    return pairs


def times(count: int, seed: int, temperature: float) -> Pairs:
    "Moments far enough apart that only the same one agrees."
    draw = np.random.default_rng(seed)
    pairs: Pairs = []
    for weights in draw.dirichlet(np.full(6, 0.5), count):
        values: list[Value] = [2.0 * place for place in range(6)]
        belief = belief_in(weights, values, temperature)
        pairs.append((answer("pre_crash_localization", belief.values[0], belief), values[draw.choice(6, p=weights)]))
    return pairs


def spans(count: int, seed: int, temperature: float) -> Pairs:
    "Spans that do not meet, the last of them never listed."
    draw = np.random.default_rng(seed)
    pairs: Pairs = []
    for weights in draw.dirichlet(np.ones(4), count):
        values: list[Value] = [Span(3.0 * place, 3.0 * place + 2) for place in range(4)]
        belief = belief_in(weights[:3], values[:3], temperature, weights[3])
        pairs.append((answer("crash_localization", belief.values[0], belief), values[draw.choice(4, p=weights)]))
    return pairs


def texts(count: int, seed: int, temperature: float) -> Pairs:
    "One text, right with its likelihood."
    draw = np.random.default_rng(seed)
    pairs: Pairs = []
    for chance in draw.beta(2, 2, count):
        belief = belief_in(np.array([chance]), ["Car hits truck."], temperature, 1 - chance)
        pairs.append((answer("crash_description", "Car hits truck.", belief), "car hits truck" if draw.random() < chance else "car hits bus"))
    return pairs


MAKERS = {"crash_recognition": recognitions, "pre_crash_localization": times, "crash_localization": spans, "crash_description": texts}


@pytest.mark.parametrize("task", MAKERS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_a_known_temperature_is_found_again(task, temperature):
    found, _ = cal.fit_temperature(cal.judge(task, MAKERS[task](3000, 0, temperature)))
    assert found == pytest.approx(temperature, rel=0.2)


@pytest.mark.parametrize("task", MAKERS)
def test_the_error_falls_on_clips_that_were_not_fitted_on(task):
    temperature, note = cal.fit_temperature(cal.judge(task, MAKERS[task](600, 0, 3.0)))
    fresh = cal.judge(task, MAKERS[task](3000, 1, 3.0))
    before, after = (cal.calibration_tally(fresh.confidence(t), fresh.right).scores()["ECE"] for t in (1.0, temperature))
    assert after < before / 2 and after < 0.05 and note == ""
    assert cal.log_loss(fresh.confidence(temperature), fresh.right) < cal.log_loss(fresh.confidence(), fresh.right)


@settings(deadline=None)
@given(st.sampled_from(list(MAKERS)), st.integers(0, 99), st.floats(0.1, 10))
def test_flat_arrays_give_what_sureness_gives(task, seed, temperature):
    pairs = MAKERS[task](5, seed, 2.0)
    judged = cal.judge(task, pairs)
    slow = [sureness(task, said.value, said.belief.tempered(temperature)) for said, _ in pairs if said.belief]
    assert judged.confidence(temperature) == pytest.approx(slow)
    assert judged.right.tolist() == [agree(task, said.value, truth) for said, truth in pairs]


def test_what_cannot_be_read_is_wrong_with_confidence_0_and_what_has_no_belief_is_counted():
    whole = Belief((), (), 1.0)
    judged = cal.judge("crash_description", [(answer("crash_description", None, whole), "x"), (answer("crash_description", "x", None), "x")])
    assert judged.right.tolist() == [False] and judged.confidence(2.0).tolist() == [0.0] and judged.without == 1
    with pytest.raises(CrashchatError, match="unknown task"):
        cal.judge("crash", [])


def test_without_enough_to_learn_from_the_temperature_is_1_and_says_why():
    def fit(pairs):
        return cal.fit_temperature(cal.judge("crash_recognition", pairs))

    some = recognitions(60, 0, 2.0)
    assert fit([]) == (1.0, "0 annotated answers with a belief, at least 20 are needed")
    assert fit(some[:19])[0] == 1.0 and fit(some[:20])[1] == ""
    assert fit([(said, said.value) for said, _ in some]) == (1.0, "all of 60 answers are right, which bounds no confidence")
    assert fit([(said, not said.value) for said, _ in some]) == (1.0, "none of 60 answers are right, which bounds no confidence")
    certain = Belief((True,), (1.0,))
    stubborn: Pairs = [(answer("crash_recognition", True, certain), number % 2 == 0) for number in range(30)]
    assert fit(stubborn) == (1.0, "no temperature is better than 1")


def test_a_temperature_at_the_bound_is_said():
    lying = Belief((True, False), (0.99, 0.01))
    pairs: Pairs = [(answer("crash_recognition", True, lying), number % 10 == 0) for number in range(50)]
    temperature, note = cal.fit_temperature(cal.judge("crash_recognition", pairs))
    assert temperature == pytest.approx(cal.HOTTEST) and note.startswith("at the bound")


def test_the_expected_calibration_error_by_hand():
    confidence, right = np.array([0.95, 0.95, 0.15, 1.0, 0.0]), np.array([True, False, True, True, False])
    # bin 0: |0 - 0|, bin 1: |0.15 - 1|, last bin: |2.9 - 2| over three
    assert cal.calibration_tally(confidence, right).scores()["ECE"] == pytest.approx((0.0 + 0.85 + 0.9) / 5)
    table = cal.reliability(confidence, right)
    assert list(table.columns) == cal.RELIABILITY and table["count"].tolist() == [1, 1, 3] and table.low.tolist() == [0.0, 0.1, 0.9]
    assert table.confidence.tolist() == pytest.approx([0.0, 0.15, 2.9 / 3]) and table.share.tolist() == pytest.approx([0, 1, 2 / 3])
    assert (table.share_low <= table.share).all() and (table.share <= table.share_high).all()
    assert not len(cal.reliability(np.zeros(0), np.zeros(0, bool)))


def test_log_loss_is_bounded_for_a_certainty_that_proves_wrong():
    assert cal.log_loss(np.array([1.0]), np.array([False])) == pytest.approx(-np.log(cal.LEAST))
    assert cal.log_loss(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(np.log(2))


def test_a_calibration_has_every_task_with_counts_errors_and_reasons(tmp_path):
    made = cal.fit_calibration([cal.judge("crash_recognition", recognitions(300, 0, 3.0)), cal.judge("causal_reasoning", [])], "fake, run 1")
    assert made.temperatures["causal_reasoning"] == 1.0 and "at least 20" in made.notes["causal_reasoning"]
    assert made.counts == {"crash_recognition": 300, "causal_reasoning": 0} and made.fitted_on == "fake, run 1"
    assert made.ece_after["crash_recognition"] < made.ece_before["crash_recognition"] and "causal_reasoning" not in made.ece_before
    write_calibration(tmp_path, made)
    assert read_calibration(tmp_path) == made
    table = cal.calibration_table(made)
    assert table.task.tolist() == ["crash_recognition", "causal_reasoning"] and table.answers.tolist() == [300, 0]
    with pytest.raises(CrashchatError, match="nothing to calibrate"):
        cal.fit_calibration([cal.judge("crash_recognition", [])], "fake")
    assert len(cal.calibration_table(Calibration({}))) == 0


class Fake:
    "Is asked, says what is annotated, is half sure; one clip cannot be read."

    def __init__(self):
        self.asked: list[tuple[str, ...]] = []

    def ask(self, clip, tasks=ALL, *, confidence=False):
        assert confidence
        if clip.case_id == "broken":
            raise CrashchatError(clip.video, "cannot be decoded")
        self.asked.append(tuple(tasks))
        return [Answer(clip.case_id, task, "?", "x", value, "fake", belief=Belief((value,), (0.5,), 0.5))
                for task in tasks for value in [{"crash_recognition": True, "pre_crash_localization": 2.0}[task]]]


def test_clips_are_asked_what_they_are_annotated_for_and_refusals_are_named():
    crash, normal = ({"crash_recognition": said, "pre_crash_localization": "2.3 seconds"} for said in ("Yes", "No"))
    cases = [Case(name, Path(f"{name}.mp4"), truth) for name, truth in [("a", crash), ("broken", crash), ("b", normal), ("c", {})]]
    analyst = Fake()
    judged, refused = cal.ask_annotated(analyst, cases, ["crash_recognition", "pre_crash_localization"])
    assert [one.task for one in judged] == ["crash_recognition", "pre_crash_localization"]
    assert judged[0].right.tolist() == [True, False] and judged[1].right.tolist() == [True]
    assert refused == ["broken: broken.mp4: cannot be decoded"] and analyst.asked == [tuple(crash), ("crash_recognition",)]


def test_an_annotation_that_cannot_be_read_is_named_before_anything_is_asked():
    analyst = Fake()
    with pytest.raises(CrashchatError, match="b: crash_recognition='perhaps' calibration needs readable"):
        cal.ask_annotated(analyst, [Case("a", Path("a.mp4"), {"crash_recognition": "Yes"}), Case("b", Path("b.mp4"), {"crash_recognition": "perhaps"})])
    assert analyst.asked == []


# ---- the command


class Boaster:
    "Knows which clips crash, says so with a doubled log-odds, and cannot read one."

    name, adapter_name, sampling, notice = "boaster", "lora", "4fps<=32", "Made up."

    def __init__(self, pairs: Pairs):
        self.pairs = pairs

    def ask(self, clip, tasks=ALL, *, confidence=False):
        if clip.case_id.endswith("007"):
            raise CrashchatError(clip.video, "cannot be decoded")
        return [self.pairs[int(clip.case_id[-3:])][0]]


@pytest.fixture
def calibrate(monkeypatch, tmp_path):
    "`crashchat calibrate` in this process on 60 made-up validation clips, with an adapter to write beside."
    pairs = recognitions(60, 0, 2.0)
    cases = [Case(f"videos/{number:03d}", tmp_path / "data" / "videos" / f"{number:03d}.mp4", {"crash_recognition": "Yes" if crash else "No"}, None, "val")
             for number, (_, crash) in enumerate(pairs)]
    write_cases(tmp_path / "data", cases, "val")
    (tmp_path / "adapter").mkdir()
    analyst = SimpleNamespace(load=lambda model, adapter=None, otherwise=None: Boaster(pairs))
    monkeypatch.setitem(sys.modules, "crashchat.infer", SimpleNamespace(Analyst=analyst))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(cli.app, ["calibrate", *words])


def test_the_command_writes_beside_the_adapter_and_names_what_could_not_be_read(calibrate, tmp_path):
    (tmp_path / "adapter" / CALIBRATION_FILE).write_text("torn")  # an old one is replaced
    result = calibrate("--data", "data", "--model", "data", "--adapter", "adapter")
    assert result.exit_code == 0, result.exception
    assert "Note: Made up." in result.output and "007.mp4: cannot be decoded" in result.output
    assert result.output.strip().splitlines()[-1] == f"adapter/{CALIBRATION_FILE}"
    made = read_calibration(tmp_path / "adapter")
    assert made and made.counts["crash_recognition"] == 59 and 1.2 < made.temperatures["crash_recognition"] < 4
    assert made.fitted_on.startswith("boaster, adapter lora, 4fps<=32; 59 of 60 val clips of data ")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [CALIBRATION_FILE]


@pytest.mark.parametrize("words, problem", [
    (["--data", "data", "--adapter", "gone"], "adapter='gone' must be a folder"),
    (["--data", "data", "--model", "DAMO-NLP-SG/VideoLLaMA3-7B"], "model='DAMO-NLP-SG/VideoLLaMA3-7B' must be a folder"),
    (["--data", "data", "--adapter", "adapter", "--split", "test"], "split='test' has no annotated clips"),
    (["--data", "nowhere", "--adapter", "adapter"], "nowhere"),
])
def test_what_cannot_be_calibrated_is_one_line_before_anything_is_loaded(calibrate, monkeypatch, words, problem):
    monkeypatch.setitem(sys.modules, "crashchat.infer", None)
    result = calibrate(*words)
    assert isinstance(result.exception, CrashchatError) and problem in str(result.exception)
