import shutil
import threading

import pytest
import torch
from original import write_lora, write_training
from pocket import SHARED, noise_clip, pocket, saved_pocket, write_video
from transformers import DynamicCache

from crashchat import infer
from crashchat.cases import read_questions
from crashchat.core import Belief, Case, CrashchatError, Span
from crashchat.infer import Analyst, AnswerStore, Branch, Vocabulary, as_case, learnt_in_other_words, pose, speak, weigh
from crashchat.model import AdapterCard, base_key, load_model, new_adapter, save_adapter, token_id
from crashchat.packing import embed, read_clips
from crashchat.preprocess import encode_question, read_clip
from crashchat.tasks import (
    ALL,
    OWN_QUESTIONS,
    PERCEPTION_TASKS,
    TASKS,
    YES_NO,
    Calibration,
    OneOf,
    QuestionSet,
    not_published,
    span_grammar,
    sureness,
    time_grammar,
    write_calibration,
)
from crashchat.zoo import merge

QUESTIONS = ["Was there a crash?", "When?", "Who does what to whom in the crash? Answer as subject, verb, object."]
LIMITS = [12, 7, 15]
REFERENCE = SHARED / "reference" / "model"


def generated(model, prefix, features, question, limit, stop):
    "What transformers' own `generate` says when it is asked only this."
    whole = torch.cat([prefix, torch.tensor(question)])[None]
    with torch.no_grad():
        alone = model.generate(
            inputs_embeds=embed(model, whole, features), attention_mask=torch.ones_like(whole), max_new_tokens=limit,
            do_sample=False, eos_token_id=stop, pad_token_id=0, past_key_values=DynamicCache(),
        )[0].tolist()
    return alone[: alone.index(stop)] if stop in alone else alone


def said(model, tokenizer, clips, questions, limits, stop):
    "Branches about every clip, clip by clip, after they have been answered side by side."
    asked = [encode_question(question, None, tokenizer)[0].tolist() for question in questions]
    branches = [Branch(clip, ids, limit) for clip in range(len(clips)) for ids, limit in zip(asked, limits, strict=True)]
    list(speak(read_clips(model, *zip(*clips, strict=True)), branches, Vocabulary(tokenizer), stop))
    return branches


@pytest.mark.parametrize("compress", [False, True])
def test_answers_in_company_are_those_of_separate_generate_calls(compress):
    tokenizer, model = pocket(seed=3)
    stop = token_id(tokenizer, "<|im_end|>")
    clips = [noise_clip(tokenizer, model, frames, seed=frames, compress=compress) for frames in (3, 7, 5)]  # of different lengths
    branches = said(model, tokenizer, clips, QUESTIONS, LIMITS, stop)
    for branch in branches:
        assert branch.spoken == generated(model, *clips[branch.clip], branch.question, branch.limit, stop)
    assert len({tuple(branch.spoken) for branch in branches}) > 3


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the recorded reference model is not here")
@pytest.mark.parametrize("layout", [["baseline"], ["baseline", "lora_checkpoint"], ["merged"]])
def test_six_answers_of_the_recorded_reference_model_are_those_of_six_generate_calls(layout):
    base = load_model(*(REFERENCE / name for name in layout), device="cpu")
    tokenizer, model = base.tokenizer, base.model
    stop = token_id(tokenizer, "<|im_end|>")
    clips = [noise_clip(tokenizer, model, frames, 84, 112, seed=frames, compress=True) for frames in (4, 9)]
    rows = list(TASKS.values())
    branches = said(model, tokenizer, clips, [row.question for row in rows], [row.max_tokens for row in rows], stop)
    assert len(branches) == 12
    for branch in branches:
        assert branch.spoken == generated(model, *clips[branch.clip], branch.question, branch.limit, stop)


def test_an_answer_ends_at_its_stop_token_and_others_go_on():
    tokenizer, model = pocket(seed=3)
    clips = [noise_clip(tokenizer, model)]
    free = [branch.spoken for branch in said(model, tokenizer, clips, QUESTIONS[:2], [9, 9], -1)]
    stopped = said(model, tokenizer, clips, QUESTIONS[:2], [9, 9], free[0][4])
    assert stopped[0].spoken == free[0][: free[0].index(free[0][4])]
    assert len(stopped[0].log_probabilities) == len(stopped[0].spoken) + 1  # the stop token's, too
    ends = free[1].index(free[0][4]) if free[0][4] in free[1] else 9
    assert stopped[1].spoken == free[1][:ends]


def test_a_reading_that_was_spoken_to_and_forgot_answers_as_a_fresh_one():
    tokenizer, model = pocket(seed=3)
    prefix, features = noise_clip(tokenizer, model)
    reading, stop = read_clips(model, [prefix], [features]), token_id(tokenizer, "<|im_end|>")
    for question, limit in zip(QUESTIONS, LIMITS, strict=True):
        branch = Branch(0, encode_question(question * 9, None, tokenizer)[0].tolist(), limit)  # longer than the room set aside
        list(speak(reading, [branch], Vocabulary(tokenizer), stop))
        assert branch.spoken == generated(model, prefix, features, branch.question, limit, stop)
        reading.forget()
    assert reading.read == len(prefix) == reading.rooms[0].length


def by_hand(model, tokenizer, prefix, features, question, answers):
    "The probability of each text after a question, over every way to spell it, as shares of one."
    pieces = [(piece, number) for piece, number in Vocabulary(tokenizer).pieces.items() if piece]
    known = {}

    def of(text, start):
        if not text:
            return 1.0
        if start not in known:
            whole = torch.cat([prefix, torch.tensor([*question, *start])])[None]
            hidden = model.model.language_model(inputs_embeds=embed(model, whole, features)).last_hidden_state[0, -1]
            known[start] = model.lm_head(hidden).double().softmax(-1)
        ways = [(piece, number) for piece, number in pieces if text.startswith(piece)]
        return sum(known[start][number].item() * of(text[len(piece):], (*start, number)) for piece, number in ways)

    with torch.no_grad():
        weights = {value: of(text, ()) for value, text in answers.items()}
    return {value: weight / sum(weights.values()) for value, weight in weights.items()}


GRAMMARS = {
    "yes or no": (YES_NO, {True: "Yes", False: "No"}),
    "time": (time_grammar(1.25), {tenth / 10: f"{tenth / 10:.1f}" for tenth in range(13)}),
    "span": (span_grammar(0.4), {Span(a / 10, b / 10): f"{a / 10:.1f} - {b / 10:.1f}" for a in range(4) for b in range(a + 1, 5)}),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_belief_is_what_adding_up_by_hand_gives(name):
    grammar, answers = GRAMMARS[name]
    tokenizer, model = pocket(seed=3)
    prefix, features = noise_clip(tokenizer, model)
    branch = Branch(0, encode_question(QUESTIONS[1], None, tokenizer)[0].tolist(), 9)
    reading = read_clips(model, [prefix], [features])
    pose(reading, [branch])
    belief = weigh(reading, [(branch, grammar)], Vocabulary(tokenizer), token_id(tokenizer, "<|im_end|>"))[0]
    plain = by_hand(model, tokenizer, prefix, features, branch.question, answers)
    assert set(belief.values) <= set(answers) and belief.rest < 0.02
    for value, share in zip(belief.values, belief.probabilities, strict=True):
        assert share == pytest.approx(plain[value], abs=0.02 + belief.rest) and share == pytest.approx(plain[value], rel=0.05)
    assert sum(belief.probabilities) + belief.rest == pytest.approx(1)
    assert list(belief.probabilities) == sorted(belief.probabilities, reverse=True)


def test_a_text_with_which_another_begins_gets_its_own_share():
    tokenizer, model = pocket(seed=3)
    prefix, features = noise_clip(tokenizer, model)
    branch, stop = Branch(0, encode_question(QUESTIONS[2], None, tokenizer)[0].tolist(), 9), token_id(tokenizer, "<|im_end|>")
    reading = read_clips(model, [prefix], [features])
    pose(reading, [branch])
    belief = weigh(reading, [(branch, OneOf(("car", "car hits truck", "truck"), str))], Vocabulary(tokenizer), stop)[0]
    assert set(belief.values) == {"car", "car hits truck", "truck"} and sum(belief.probabilities) == pytest.approx(1, abs=1e-3)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the recorded reference model is not here")
def test_beliefs_of_a_tokenizer_that_spells_numbers_digit_by_digit():
    base = load_model(REFERENCE / "baseline", device="cpu")
    vocabulary, grammar = Vocabulary(base.tokenizer), time_grammar(1.25)
    assert set(vocabulary.after(grammar, "1.").values()) == {"0", "1", "2"}
    prefix, features = noise_clip(base.tokenizer, base.model, 4, 84, 112)
    branch = Branch(0, encode_question("When?", None, base.tokenizer)[0].tolist(), 9)
    reading = read_clips(base.model, [prefix], [features])
    pose(reading, [branch])
    belief = weigh(reading, [(branch, grammar)], vocabulary, token_id(base.tokenizer, "<|im_end|>"))[0]
    plain = by_hand(base.model, base.tokenizer, prefix, features, branch.question, GRAMMARS["time"][1])
    for value, share in zip(belief.values, belief.probabilities, strict=True):
        assert share == pytest.approx(plain[value], abs=0.01 + belief.rest)


def test_the_work_for_a_long_clip_is_bounded_and_what_is_left_out_is_said():
    tokenizer, model = pocket(seed=3)
    prefix, features = noise_clip(tokenizer, model)
    branch = Branch(0, encode_question(QUESTIONS[1], None, tokenizer)[0].tolist(), 9)
    reading = read_clips(model, [prefix], [features])
    pose(reading, [branch])
    belief = weigh(reading, [(branch, span_grammar(600.0))], Vocabulary(tokenizer), token_id(tokenizer, "<|im_end|>"))[0]  # 18 million spans
    assert belief.rest > 0.9 and belief.values  # it has no idea, and says so
    assert all(0 <= span.start_s < span.end_s <= 600 for span in belief.values)
    assert len(reading.past[0]) < 6000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_pocket(tmp_path_factory.mktemp("model") / "pocket")


def test_six_typed_answers_with_their_origin(folder, tmp_path):
    analyst = Analyst.load(folder, device="cpu")
    clip = write_video(tmp_path / "clip.mp4")
    answers = analyst.ask(clip)
    assert [answer.task for answer in answers] == list(ALL)
    for answer in answers:
        assert answer.case_id == "clip" and answer.model == "pocket" and answer.adapter is None
        assert answer.question == OWN_QUESTIONS[answer.task] and answer.sampling == analyst.sampling
        assert answer.value is None or isinstance(answer.value, bool | str | float | Span)
    assert analyst.ask(clip) == answers
    assert analyst.ask(Case("x/y", clip), ["crash_localization"])[0].text == answers[5].text
    assert analyst.ask(clip, []) == []
    assert analyst.notice and "simulated" in analyst.notice


def test_black_frames_hide_the_clip(folder, tmp_path):
    analyst = Analyst.load(folder, device="cpu")
    one, two = write_video(tmp_path / "a.mp4", seed=1), write_video(tmp_path / "b.mp4", seed=9)
    texts = [[a.text for a in analyst.ask(clip, black=black)] for clip in (one, two) for black in (True, False)]
    assert texts[0] == texts[2] != texts[1]


def test_bad_questions_and_clips_are_refused(folder, tmp_path):
    analyst = Analyst.load(folder, device="cpu")
    clip = write_video(tmp_path / "clip.mp4")
    with pytest.raises(CrashchatError, match="task='weather'"):
        analyst.ask(clip, ["weather"])
    with pytest.raises(CrashchatError, match="blank"):
        analyst.ask_freely(clip, " \n")
    assert analyst.ask_freely(clip, "What colour is the car? " * 300).task == "free"
    (tmp_path / "text.mp4").write_text("not a video")
    for bad in ("text.mp4", "absent.mp4"):
        with pytest.raises(CrashchatError, match=bad):
            analyst.ask(tmp_path / bad)


def test_an_adapter_is_asked_in_the_words_it_learnt(folder, tmp_path, caplog):
    _, model = pocket()
    key = base_key(model)
    card = AdapterCard("mine", "crash_recognition_independent_monotask", "pocket", key, "theirs", {"crash_recognition": "Crash??"})
    save_adapter(tmp_path / "adapter", new_adapter(model, 4, 8, 0.0), card)
    analyst = Analyst.load(folder, tmp_path / "adapter", device="cpu")
    assert analyst.adapter_name == "mine"
    assert analyst.questions["crash_recognition"] == "Crash??"
    assert analyst.questions["crash_description"] == OWN_QUESTIONS["crash_description"]
    Analyst.load(folder, tmp_path / "adapter", "cpu", QuestionSet("other", {"crash_recognition": "Was there one?"}))
    assert "other words" in caplog.text


def test_what_an_adapter_has_not_learnt_is_asked_in_the_other_words_given(folder, tmp_path):
    _, model = pocket()
    card = AdapterCard("mine", "crash_recognition_independent_monotask", "pocket", base_key(model), "theirs", {"crash_recognition": "Crash??"})
    save_adapter(tmp_path / "adapter", new_adapter(model, 4, 8, 0.0), card)
    of_data = QuestionSet("of data", dict.fromkeys(ALL, "What?"))
    analyst = Analyst.load(folder, tmp_path / "adapter", device="cpu", otherwise=of_data)
    assert analyst.questions.name == "theirs" and analyst.questions.questions == {**of_data.questions, "crash_recognition": "Crash??"}
    assert Analyst.load(folder, device="cpu", otherwise=of_data).questions == of_data


def test_a_published_adapter_asked_in_our_words_warns(tmp_path, caplog):
    tokenizer, model = pocket()
    write_training(tmp_path / "videollama3_baseline", model, tokenizer)
    write_lora(tmp_path / "perception_centric_homogeneous_multitask", model, tokenizer)
    analyst = Analyst.load(tmp_path / "perception_centric_homogeneous_multitask", device="cpu")
    assert analyst.adapter_name == "perception_centric_homogeneous_multitask"
    said = "perception_centric_homogeneous_multitask learnt these tasks in other words than it is asked in now, those of crashchat"
    assert f"{said}: pre_crash_localization, crash_localization" in caplog.text
    caplog.clear()
    Analyst.load(tmp_path / "videollama3_baseline", device="cpu")  # trained on none of them
    assert "other words" not in caplog.text
    merge(tmp_path / "videollama3_baseline", tmp_path / "perception_centric_homogeneous_multitask", tmp_path / "merged")
    merged = load_model(tmp_path / "merged", device="cpu")
    assert learnt_in_other_words(merged.card.name, merged.adapter, OWN_QUESTIONS)[1] == list(PERCEPTION_TASKS)


@pytest.mark.skipif(not (SHARED / "annotations").is_dir(), reason="the published annotation files are not here")
def test_the_published_words_are_known_again(tmp_path, caplog):
    words = read_questions(SHARED / "annotations" / "crashchat")
    assert list(words.questions) == list(ALL) and not_published(words) == []
    tokenizer, model = pocket()
    write_training(tmp_path / "videollama3_baseline", model, tokenizer)
    write_lora(tmp_path / "heterogeneous_multitask", model, tokenizer)
    assert Analyst.load(tmp_path / "heterogeneous_multitask", device="cpu", questions=words).questions == words
    assert "other words" not in caplog.text


def test_a_path_is_a_case_of_which_nothing_is_known(tmp_path):
    case = as_case(tmp_path / "clip.mp4")
    assert case.case_id == "clip" and not case.truth
    assert as_case(case) is case


def test_frames_are_chosen_as_the_adapter_was_shown_them_unless_told_otherwise(folder, tmp_path):
    _, model = pocket()
    card = AdapterCard("mine", "crash_recognition_independent_monotask", "pocket", base_key(model), "theirs", {}, "time")
    save_adapter(tmp_path / "adapter", new_adapter(model, 4, 8, 0.0), card)
    assert "by index" in Analyst.load(folder, device="cpu").sampling
    assert "by time" in Analyst.load(folder, tmp_path / "adapter", "cpu").sampling
    told = Analyst.load(folder, tmp_path / "adapter", "cpu", sampled_by="index")
    assert told.ask(write_video(tmp_path / "a.mp4"), ["crash_recognition"])[0].sampling == "4fps<=32 by index tokens<=384 all"


@pytest.fixture
def counted(monkeypatch):
    "How often clips were decoded, encoded and read by the language model."
    counts = dict.fromkeys(("read_clip", "encode_frames", "read_clips"), 0)
    for name in counts:
        monkeypatch.setattr(infer, name, counting(getattr(infer, name), counts, name))
    return counts


def counting(work, counts, name):
    def wrapper(*given):
        counts[name] += 1
        return work(*given)
    return wrapper


def test_further_questions_find_the_clip_read_and_repeated_ones_the_answer(folder, tmp_path, counted, monkeypatch):
    analyst, clip = Analyst.load(folder, device="cpu"), write_video(tmp_path / "clip.mp4")
    first = analyst.ask(clip, ["crash_recognition"])
    free = analyst.ask_freely(clip, "What colour is it?")
    assert analyst.ask(clip)[0] == first[0]
    assert counted == {"read_clip": 1, "encode_frames": 1, "read_clips": 1}
    monkeypatch.setattr(infer, "speak", None)  # nothing is said any more
    assert analyst.ask(clip, ["crash_recognition"]) == first and analyst.ask_freely(clip, " What colour is it? ") == free
    copy = shutil.copy(clip, tmp_path / "copy.mp4")  # x264 does not write the same bytes twice at every size
    assert analyst.ask(copy, ["crash_recognition"])[0].case_id == "copy"  # the same clip under another name
    assert counted["read_clip"] == 1


def test_a_clip_that_changes_is_looked_at_again(folder, tmp_path, counted):
    analyst = Analyst.load(folder, device="cpu")
    before = analyst.ask(write_video(tmp_path / "clip.mp4", seed=1))
    after = analyst.ask(write_video(tmp_path / "clip.mp4", seed=9, seconds=3.0))
    assert counted["read_clip"] == 2 and [a.belief for a in before] != [a.belief for a in after]


def test_answers_outlive_the_process_and_belong_to_one_model(folder, tmp_path, counted, caplog):
    clip, path = write_video(tmp_path / "clip.mp4"), tmp_path / "kept" / "answers.sqlite"
    answers = Analyst.load(folder, device="cpu", answers=AnswerStore(path)).ask(clip)
    assert Analyst.load(folder, device="cpu", answers=AnswerStore(path)).ask(clip) == answers and counted["read_clip"] == 1
    other = saved_pocket(tmp_path / "other" / "pocket", seed=1)  # of the same name, with other weights
    assert Analyst.load(other, device="cpu", answers=AnswerStore(path)).ask(clip) != answers and counted["read_clip"] == 2
    Analyst.load(folder, device="cpu", answers=AnswerStore(path)).ask(clip, grammar=False)
    assert counted["read_clip"] == 3 and not caplog.records


def test_damaged_answers_are_said_and_asked_again(folder, tmp_path, caplog):
    clip, path = write_video(tmp_path / "clip.mp4"), tmp_path / "answers.sqlite"
    store = AnswerStore(path)
    answers = Analyst.load(folder, device="cpu", answers=store).ask(clip)
    store._base.execute("UPDATE answers SET answer = '{\"task\": 3}'")
    assert Analyst.load(folder, device="cpu", answers=store).ask(clip) == answers
    assert "is damaged and asked again" in caplog.text and "answers.sqlite" in caplog.text
    caplog.clear()
    path.write_bytes(b"no database at all, but long enough to be taken for the header of one" * 40)
    assert Analyst.load(folder, device="cpu", answers=AnswerStore(path)).ask(clip) == answers
    assert "answers.sqlite.damaged" in caplog.text and (tmp_path / "answers.sqlite.damaged").exists()
    (tmp_path / "file").write_text("in the way of a folder")
    assert Analyst.load(folder, device="cpu", answers=AnswerStore(tmp_path / "file" / "answers.sqlite")).ask(clip) == answers
    assert "answers are kept in memory" in caplog.text


def test_answers_grow_word_by_word_and_end_whole(folder, tmp_path):
    clip, tasks = write_video(tmp_path / "clip.mp4"), ["crash_recognition", "crash_description", "crash_localization"]
    pieces = list(Analyst.load(folder, device="cpu").stream(clip, tasks))
    answers = {piece.task: piece.answer for piece in pieces if piece.answer}
    assert [answers[task] for task in tasks] == Analyst.load(folder, device="cpu").ask(clip, tasks)
    for task in tasks:
        texts = [piece.text for piece in pieces if piece.task == task]
        assert all(later.startswith(earlier.rstrip("\ufffd")) for earlier, later in zip(texts, texts[1:], strict=False))
    assert len(pieces) > 6 and pieces[0].answer is None
    free = list(Analyst.load(folder, device="cpu").stream_freely(clip, "What?"))
    assert free[-1].answer and free[-1].answer.text == free[-1].text


def test_a_stream_left_early_does_no_harm_and_one_still_open_is_said(folder, tmp_path):
    analyst, clip = Analyst.load(folder, device="cpu"), write_video(tmp_path / "clip.mp4")
    stream = analyst.stream(clip)
    next(stream)
    with pytest.raises(CrashchatError, match="still being listened to"):
        analyst.ask(clip)
    later = []
    thread = threading.Thread(target=lambda: later.extend(analyst.ask(clip)))
    thread.start()  # another caller waits
    stream.close()
    thread.join(60)
    assert later == analyst.ask(clip) == Analyst.load(folder, device="cpu").ask(clip)


@pytest.mark.parametrize("seed", range(4))
def test_within_its_grammar_even_a_random_model_answers_in_form(tmp_path, seed):
    analyst = Analyst.load(saved_pocket(tmp_path / "pocket", seed), device="cpu")
    clip = write_video(tmp_path / "clip.mp4", seconds=1.3)
    crash, *_, when, span = analyst.ask(clip)
    assert isinstance(crash.value, bool) and crash.text == TASKS["crash_recognition"].format(crash.value)
    assert isinstance(when.value, float) and 0 <= when.value <= 1.3 and when.text == f"{when.value:.1f} seconds"
    assert isinstance(span.value, Span) and 0 <= span.value.start_s < span.value.end_s <= 1.3
    free = analyst.ask(clip, grammar=False)
    assert free[1:4] == analyst.ask(clip)[1:4]  # text is free either way
    assert free[0].value is None and free[0].confidence == 0 and free[0].belief == crash.belief  # and the belief is of the question
    assert analyst.ask(clip, confidence=False)[0].confidence is None


def test_confidence_is_the_calibrated_probability_of_agreeing(folder, tmp_path):
    clip = write_video(tmp_path / "clip.mp4")
    plain = Analyst.load(folder, device="cpu").ask(clip)
    for answer in plain:
        assert answer.confidence == sureness(answer.task, answer.value, answer.belief)
        assert sum(answer.belief.probabilities) + answer.belief.rest == pytest.approx(1)
    mine = saved_pocket(tmp_path / "pocket")
    write_calibration(mine, Calibration({"crash_recognition": 3.0}))
    calibrated = Analyst.load(mine, device="cpu").ask(clip)
    assert [answer.belief for answer in calibrated] == [answer.belief for answer in plain]  # kept as it was
    assert calibrated[0].confidence == sureness("crash_recognition", plain[0].value, plain[0].belief.tempered(3.0)) != plain[0].confidence
    assert [answer.confidence for answer in calibrated[1:]] == [answer.confidence for answer in plain[1:]]


def test_closed_answers_are_ranked(folder, tmp_path):
    analyst, clip = Analyst.load(folder, device="cpu"), write_video(tmp_path / "clip.mp4")
    ranked = analyst.rank(clip, "crash_description", ["car hits truck", "truck hits car", "no collision."])
    assert isinstance(ranked, Belief) and set(ranked.values) <= {"car hits truck", "truck hits car", "no collision."}
    assert analyst.rank(clip, "crash_description", ["car hits truck"]).probabilities == pytest.approx((1.0,), abs=1e-3)
    with pytest.raises(CrashchatError, match="needs answers to choose from"):
        analyst.rank(clip, "crash_description", [])


def test_many_clips_at_once_are_answered_as_each_alone(folder, tmp_path):
    analyst = Analyst.load(folder, device="cpu")
    clips = [write_video(tmp_path / f"{seed}.mp4", seconds, seed=seed) for seed, seconds in enumerate((1.0, 2.5, 1.7))]
    together = analyst.answer_all([analyst.look(clip) for clip in clips])
    for clip, answers in zip(clips, together, strict=True):
        for one, other in zip(answers, analyst.ask(clip), strict=True):
            assert (one.text, one.value, one.case_id) == (other.text, other.value, clip.stem)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
    assert analyst.answer_all([]) == [] and analyst.answer_all([analyst.look(clips[0])], []) == [[]]


def trained(folder, strategy, seed, questions=None, sampled_by=None):
    "An adapter with random weights, its projector included."
    _, model = pocket()
    torch.manual_seed(seed)
    tuned = new_adapter(model, 4, 8, 0.0)
    for tensor in tuned.parameters():
        if tensor.requires_grad:
            tensor.data += 0.05 * torch.randn_like(tensor)
    save_adapter(folder, tuned, AdapterCard(folder.name, strategy, "pocket", base_key(model), "theirs", questions or {}, sampled_by))
    return folder


def test_several_adapters_share_the_clip_and_each_answers_its_tasks(folder, tmp_path, counted):
    clip = write_video(tmp_path / "clip.mp4")
    words = trained(tmp_path / "words", "linguistic_centric_homogeneous_multitask", 1, {"crash_description": "Who??"})
    times = trained(tmp_path / "times", "unknown", 2)
    every = trained(tmp_path / "every", "heterogeneous_multitask", 3)
    alone = {path: Analyst.load(folder, path, "cpu") for path in (words, times, every)}
    tasks = ["crash_recognition", "crash_description", *PERCEPTION_TASKS]
    expected = [*alone[words].ask(clip, tasks[:2]), *alone[times].ask(clip, tasks[2:])]
    counted.update(dict.fromkeys(counted, 0))
    both = Analyst.load(folder, device="cpu", adapters={"linguistic": words, "perception": times, "heterogeneous": every})
    assert both.ask(clip, tasks) == expected
    assert counted == {"read_clip": 1, "encode_frames": 1, "read_clips": 2}
    assert both.adapter_name == "words + times" and both.questions["crash_description"] == "Who??"
    assert both.ask_freely(clip, "What?") == alone[words].ask_freely(clip, "What?")
    seen = both.look(clip)
    assert [answer.text for answer in both.answer_all([seen], tasks)[0]] == [answer.text for answer in expected]


def test_adapters_that_do_not_go_together_are_refused(folder, tmp_path):
    words = trained(tmp_path / "words", "linguistic_centric_homogeneous_multitask", 1, sampled_by="time")
    odd = trained(tmp_path / "odd", "unknown", 2, sampled_by="index")
    clip = write_video(tmp_path / "clip.mp4")
    with pytest.raises(CrashchatError, match="beside one adapter"):
        Analyst.load(folder, words, "cpu", adapters={"perception": odd})
    with pytest.raises(CrashchatError, match="name='mine'"):
        Analyst.load(folder, device="cpu", adapters={"mine": odd})
    with pytest.raises(CrashchatError, match="sampled_by='index and time'"):
        Analyst.load(folder, device="cpu", adapters={"linguistic": words, "perception": odd})
    with pytest.raises(CrashchatError, match="crash_localization"):
        Analyst.load(folder, device="cpu", adapters={"linguistic": words}).ask(clip)
    with pytest.raises(CrashchatError, match="absent"):
        Analyst.load(folder, device="cpu", adapters={"linguistic": tmp_path / "absent"})


def test_an_adapter_with_an_encoder_of_its_own_has_the_clip_encoded_for_it(tmp_path, counted):
    tokenizer, model = pocket()
    base = write_training(tmp_path / "videollama3_baseline", model, tokenizer)
    for name in ("linguistic_centric_homogeneous_multitask", "perception_centric_homogeneous_multitask"):
        write_lora(tmp_path / name, model, tokenizer)
    own = any("vision" in name for name in infer.load_model(tmp_path / "videollama3_baseline", tmp_path / name, "cpu").model.state_dict() if "lora" in name)
    given = {"linguistic": tmp_path / "linguistic_centric_homogeneous_multitask", "perception": tmp_path / name}
    Analyst.load(base or tmp_path / "videollama3_baseline", device="cpu", adapters=given).ask(write_video(tmp_path / "clip.mp4"))
    assert counted["encode_frames"] == (2 if own else 1)


def test_what_is_kept_of_clips_is_bounded(folder, tmp_path, counted, monkeypatch):
    analyst = Analyst.load(folder, device="cpu")
    clips = [write_video(tmp_path / f"{seed}.mp4", seed=seed) for seed in range(3)]
    analyst.ask(clips[0], ["crash_recognition"])
    one = analyst.held_bytes
    assert one > 0
    monkeypatch.setattr(infer, "MOST_HELD_BYTES", round(2.5 * one))
    for clip in clips:
        analyst.ask(clip, ["crash_recognition"])
        assert analyst.held_bytes <= 2.5 * one
    analyst.ask(clips[1], ["crash_description"])
    assert counted["read_clip"] == 3
    analyst.ask(clips[0], ["crash_description"])  # read longest ago
    assert counted["read_clip"] == 4


def test_a_clip_of_ten_minutes(folder, tmp_path):
    analyst, clip = Analyst.load(folder, device="cpu"), write_video(tmp_path / "long.mp4", 600.0, fps=2, height=56, width=84)
    crash, when, span = analyst.ask(clip, ["crash_recognition", *PERCEPTION_TASKS])
    assert analyst.look(clip).length_s == pytest.approx(600) and len(analyst.look(clip).clip.times_s) == 32
    assert isinstance(crash.value, bool) and 0 <= when.value <= 600 and 0 <= span.value.start_s < span.value.end_s <= 600
    assert analyst.held_bytes < 16 << 20


def test_long_questions_in_any_language(folder, tmp_path):
    analyst, clip = Analyst.load(folder, device="cpu"), write_video(tmp_path / "clip.mp4")
    assert analyst.ask_freely(clip, "Что случилось? 何が起きましたか?").text is not None
    with pytest.raises(CrashchatError, match="question='wwwwww.*needs .* tokens, the model reads 4096"):
        analyst.ask_freely(clip, "w" * 10_000)
    with pytest.raises(CrashchatError, match="has 30000 characters, more than 20000"):
        analyst.ask_freely(clip, "x" * 30_000)
    assert analyst.ask(clip) == Analyst.load(folder, device="cpu").ask(clip)


def test_a_file_that_changes_while_it_is_read_is_refused(folder, tmp_path, monkeypatch):
    analyst, clip = Analyst.load(folder, device="cpu"), write_video(tmp_path / "clip.mp4")

    def meddled(*given):
        seen = read_clip(*given)
        write_video(clip, seed=7)
        return seen

    monkeypatch.setattr(infer, "read_clip", meddled)
    with pytest.raises(CrashchatError, match="clip.mp4.*changed while it was read"):
        analyst.look(clip)
