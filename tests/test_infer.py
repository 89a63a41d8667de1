import pytest
import torch
from original import write_lora, write_training
from pocket import SHARED, noise_clip, pocket, saved_pocket, write_video
from transformers import DynamicCache

from crashchat.cases import read_questions
from crashchat.core import Case, CrashchatError, Span
from crashchat.infer import Analyst, answer_together, as_case, learnt_in_other_words
from crashchat.model import AdapterCard, base_key, load_model, new_adapter, save_adapter
from crashchat.packing import embed
from crashchat.preprocess import encode_question
from crashchat.tasks import ALL, OWN_QUESTIONS, PERCEPTION_TASKS, QuestionSet, not_published
from crashchat.zoo import merge

QUESTIONS = ["Was there a crash?", "When?", "Who does what to whom in the crash? Answer as subject, verb, object."]


def test_answers_in_company_are_those_of_separate_generate_calls():
    tokenizer, model = pocket(seed=3)
    prefix, features = noise_clip(tokenizer, model)
    asked = [encode_question(question, None, tokenizer)[0] for question in QUESTIONS]
    stop, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    together = answer_together(model, prefix, features, asked, [12, 7, 15], stop, pad)
    for ids, limit, spoken in zip(asked, [12, 7, 15], together, strict=True):
        whole = torch.cat([prefix, ids])[None]
        with torch.no_grad():
            alone = model.generate(
                inputs_embeds=embed(model, whole, features), attention_mask=torch.ones_like(whole), max_new_tokens=limit,
                do_sample=False, eos_token_id=stop, pad_token_id=pad, past_key_values=DynamicCache(),
            )[0].tolist()
        assert spoken == (alone[: alone.index(stop)] if stop in alone else alone)
    assert len({tuple(spoken) for spoken in together}) > 1


def test_an_answer_ends_at_its_stop_token_and_others_go_on():
    tokenizer, model = pocket(seed=3)
    prefix, features = noise_clip(tokenizer, model)
    asked = [encode_question(question, None, tokenizer)[0] for question in QUESTIONS[:2]]
    free = answer_together(model, prefix, features, asked, [9, 9], -1, 0)
    stopped = answer_together(model, prefix, features, asked, [9, 9], free[0][4], 0)
    assert stopped[0] == free[0][: free[0].index(free[0][4])]
    ends = free[1].index(free[0][4]) if free[0][4] in free[1] else 9
    assert stopped[1] == free[1][:ends]


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
    assert learnt_in_other_words(load_model(tmp_path / "merged", device="cpu"), OWN_QUESTIONS)[1] == list(PERCEPTION_TASKS)


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
