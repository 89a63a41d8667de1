from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from crashchat.core import CrashchatError, append_jsonl, read_json, read_jsonl
from crashchat.model import POCKET_CARD, build_pocket, load_model, save_model, train_tokenizer
from crashchat.preprocess import read_clip, to_patches
from crashchat.pretrain import (
    FIRST_SEED,
    HEIGHT_PX,
    MOST_FRAMES,
    TIMES_S,
    WIDTH_PX,
    Muon,
    PretrainConfig,
    Stage,
    World,
    batch_at,
    frame_count,
    kind_of,
    lesson,
    own_scores,
    pretrain,
    rate_at,
    seen_scenario,
    sentences,
    small_frames,
    speech,
    what,
    when,
    window_start,
    world_texts,
)
from crashchat.scenarios import behaviour, ego_motion_at, scenario_truth, state_at
from crashchat.simulate import write_clip
from crashchat.tasks import TASKS


def test_every_step_has_a_stage_and_a_rate():
    config = PretrainConfig()
    lengths = [config.stage_at(step).frames for step in range(config.steps)]
    assert lengths == sum(([stage.frames] * stage.steps for stage in config.stages), [])
    rates = [rate_at(step, config) for step in range(config.steps)]
    assert 0 < rates[0] < 0.02 and max(rates) == 1.0 and rates[-1] == pytest.approx(0.02, abs=0.01)
    assert rates[config.steps - config.stages[-1].steps - 1] == 1.0


HIT = "Is the ego-car hit? Answer Yes or No."


def begin(thing):
    "The question when it begins."
    return f"When does {thing} begin? Answer with one time in seconds."


def crash(wanted=True):
    for index in range(200):
        scenario = seen_scenario(FIRST_SEED + index)
        if (scenario.crash is not None) == wanted:
            return scenario
    raise AssertionError("no such scenario among 200")


def test_a_whole_clip_is_asked_what_is_to_be_seen_in_it():
    for index in range(60):
        scenario = seen_scenario(FIRST_SEED + index)
        said = dict(lesson(scenario, 0, frame_count(scenario), np.random.default_rng(index)))
        assert sum(question.startswith("State at ") for question in said) == 6
        if scenario.crash is not None:
            begins = {begin("the danger"): scenario.cue_s, begin("the crash"): scenario.crash.start_s, begin("the rest"): scenario.crash.end_s}
            assert all(said[question] == f"{time_s:.1f} seconds" for question, time_s in begins.items() if question in said)
            assert begin("the crash") in said and said["Who brings danger?"] == scenario.main_actor and said["From which side?"] == scenario.side
            assert said[HIT] == ("Yes" if scenario.ego_involved else "No")
            assert said["What do they do? Answer in one sentence."] == behaviour(scenario) and "crash" in said["Which states?"]
        else:
            assert not {begin("the crash"), begin("the rest"), HIT} & said.keys()
            assert (begin("the danger") in said) <= scenario.near_miss
            assert said["Which states?"] == ("normal, danger, normal" if scenario.near_miss else "normal")


def test_no_lesson_asks_a_crash_task_and_none_of_their_sentences_answers_a_question_about_a_clip():
    "They come up as sentences to go on with only, which are drawn without a look at the clip. Moments and Yes or No are no sentences."
    tasks = {task.question for task in TASKS.values()}
    for index in range(60):
        scenario = seen_scenario(FIRST_SEED + index)
        asked = lesson(scenario, 0, frame_count(scenario), np.random.default_rng(index))
        spoken = [(question, answer) for question, answer in asked if question.startswith("Go on:")]
        assert len(spoken) == 1 and asked[-1] == spoken[0] and not tasks & {question for question, _ in asked}
        told = {truth for truth in scenario_truth(scenario).values() if len(truth.split()) > 2}
        assert not told & {answer for question, answer in asked if (question, answer) not in spoken}


def test_speech_goes_on_with_any_sentence_at_any_word():
    rng = np.random.default_rng(0)
    drawn = [speech(rng, 8.0) for _ in range(3000)]
    whole = {" ".join(filter(None, (question.removeprefix("Go on:").strip(), answer))) for question, answer in drawn}
    assert set(sentences()) <= whole and all(answer for _, answer in drawn)
    for index in range(40):
        assert {answer for answer in scenario_truth(seen_scenario(FIRST_SEED + index)).values() if "seconds" not in answer} <= set(sentences())
    assert sum(question == "Go on:" for question, _ in drawn) > 300
    assert 0.2 < np.mean([answer.endswith("seconds") for _, answer in drawn]) < 0.4


def test_a_batch_is_decided_by_its_seed_and_long_windows_are_often_whole_clips():
    scenarios = [seen_scenario(FIRST_SEED + index) for index in range(8)]
    counts = np.array([frame_count(scenario) for scenario in scenarios])
    world = World(scenarios, np.zeros((8, MOST_FRAMES, HEIGHT_PX, WIDTH_PX, 3), np.uint8), counts)
    tokenizer = train_tokenizer(world_texts(scenarios))
    (first, _), (again, _), (other, _) = (batch_at(world, Stage(0, 1, 2), seed, tokenizer, 3) for seed in ((0, 1, 0), (0, 1, 0), (0, 2, 0)))
    assert first.clips == again.clips and all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("input_ids", "features", "weights"))
    assert first.features.shape != other.features.shape or not torch.equal(first.features, other.features)
    lengths = {batch_at(world, Stage(0, 1, 1), (0, step, 0), tokenizer, 3)[1] for step in range(30)}
    assert lengths <= set(counts.tolist()) and len(lengths) > 1


def test_a_windows_clock_starts_at_zero_and_only_what_begins_in_it_begins():
    scenario, first = crash(), 4
    for frames in range(4, frame_count(scenario) - first):
        said = dict(lesson(scenario, first, frames, np.random.default_rng(frames)))
        times_s = TIMES_S[first : first + frames]
        for question, answer in said.items():
            if question.startswith("State at "):
                moment = float(question.removeprefix("State at ").rstrip("?"))
                assert answer == state_at(scenario, round(times_s[0] + moment, 1))
        begins_here = times_s[0] + 0.25 <= scenario.crash.end_s <= times_s[-1] - 0.25
        assert (begin("the rest") in said) == begins_here
        if begins_here:
            assert said[begin("the rest")] == f"{scenario.crash.end_s - times_s[0]:.1f} seconds"
        assert not {"Who brings danger?", "From which side?"} & said.keys() or times_s[0] <= scenario.cue_s


def test_danger_lasts_from_where_it_begins_to_what_ends_it():
    ends = {"crash": "the crash", "near_miss": "the calm"}
    whole = 0
    for index in range(60):
        scenario = seen_scenario(FIRST_SEED + index)
        said = dict(when(scenario, TIMES_S[: frame_count(scenario)]))
        calm, danger = (said.get(f"From when to when does the {thing} last? Answer with start and end in seconds.") for thing in ("calm", "danger"))
        begun, ended = (said.get(begin(thing), "").removesuffix(" seconds") for thing in ("the danger", ends.get(scenario.outcome)))
        assert calm == (f"0.0 - {begun} seconds" if begun else None)
        assert danger == (f"{begun} - {ended} seconds" if begun and ended else None)
        whole += danger is not None
    assert whole > 30


def test_a_window_that_shows_only_a_part_is_asked_of_no_more():
    scenario = crash()
    before = TIMES_S[TIMES_S < scenario.cue_s]
    assert what(scenario, before) == [("Which states?", "normal")]
    assert [question for question, _ in what(scenario, TIMES_S[(TIMES_S > scenario.cue_s)])] == ["Which states?"]


def test_standing_begins_where_the_ego_car_first_stands():
    stood = 0
    for index in range(40):
        scenario = seen_scenario(FIRST_SEED + index)
        times_s = TIMES_S[: frame_count(scenario)]
        answer = dict(when(scenario, times_s)).get(begin("the standing of the ego-car"))
        if answer is not None:
            stood += 1
            at = float(answer.removesuffix(" seconds"))
            assert ego_motion_at(scenario, at) == "standing"
            assert all(ego_motion_at(scenario, time_s) != "standing" for time_s in times_s[times_s < at - 1e-6])
    assert stood > 10


def test_windows_stay_inside_the_clip():
    scenario, rng = crash(), np.random.default_rng(0)
    count = frame_count(scenario)
    for frames in (2, 4, 8, 16, count):
        starts = [window_start(scenario, frames, count, rng) for _ in range(200)]
        assert min(starts) >= 0 and max(starts) <= count - frames


def test_frames_are_those_that_reading_a_written_clip_gives(tmp_path):
    scenario = crash()
    write_clip(scenario, tmp_path / "clip.mp4")
    seen = read_clip(tmp_path / "clip.mp4", POCKET_CARD)
    count = frame_count(scenario)
    np.testing.assert_allclose(seen.times_s, TIMES_S[:count], atol=1e-3)
    rendered = to_patches(small_frames(scenario.seed)[:count])
    assert (seen.patches - rendered).abs().mean() < 0.06  # coded and scaled by another route: about 3 % of the range


def test_frames_are_the_models_size_and_the_same_for_a_seed():
    frames = small_frames(FIRST_SEED)
    assert frames.shape == (32, 84, 112, 3) and frames.dtype == np.uint8
    count = frame_count(seen_scenario(FIRST_SEED))
    assert frames[:count].std() > 10 and not frames[count:].any()
    assert (small_frames(FIRST_SEED) == frames).all()


def test_a_tiny_pretraining_runs_resumes_and_loads(tmp_path, monkeypatch):
    monkeypatch.setattr("crashchat.pretrain.ASKED", 2)
    config = PretrainConfig(clips=6, processes=1, warmup_steps=2, stages=(Stage(2, 20, 4), Stage(0, 5, 2)))
    model = load_model(pretrain(tmp_path / "run", config), device="cpu")
    assert model.card.name == "pocket"
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    kept = read_json(tmp_path / "run" / "model" / "pretraining.json")
    assert kept["run"] == "run" and kept["config"]["clips"] == 6 and kept["provenance"]["time_utc"] <= rows[-1]["time_utc"]
    questions = [kind_of(question) for seed in (6, 7) for question, _ in whole_lesson(FIRST_SEED + seed)]  # of the two clips after the six
    assert {kind: asked for kind, (_, asked) in kept["own_questions"].items()} == Counter(questions)
    assert [row["step"] for row in rows] == [25] and read_jsonl(tmp_path / "run" / "model" / "pretraining.jsonl") == rows
    append_jsonl(tmp_path / "run" / "metrics.jsonl", [{"step": 50, "frames": 2, "loss": 0.0}])  # a kill after the last saved state
    pretrain(tmp_path / "run", config)  # finished: nothing left to do, and rows past the state are taken back
    assert read_jsonl(tmp_path / "run" / "metrics.jsonl") == rows and read_json(tmp_path / "run" / "model" / "pretraining.json") == kept
    with pytest.raises(CrashchatError, match="other settings"):
        pretrain(tmp_path / "run", PretrainConfig(clips=7))


def whole_lesson(seed: int) -> list[tuple[str, str]]:
    "What a finished base is asked about a clip."
    scenario = seen_scenario(seed)
    return lesson(scenario, 0, frame_count(scenario), np.random.default_rng(seed))


def test_an_answer_counts_only_if_every_token_of_it_is_foretold(tmp_path, monkeypatch):
    monkeypatch.setattr("crashchat.pretrain.ASKED", 1)
    config = PretrainConfig(clips=0)
    tokenizer = train_tokenizer(answer for question in whole_lesson(FIRST_SEED) for answer in question)
    save_model(tmp_path / "model", build_pocket(tokenizer, 0), tokenizer, POCKET_CARD)
    asked = Counter(kind_of(question) for question, _ in whole_lesson(FIRST_SEED))
    wrong: list[int] = []

    def foretold(model, row):
        logits = torch.nn.functional.one_hot(row.targets, len(tokenizer)).float()
        last = int((row.question == 0).nonzero()[-1])  # the end of the first question's answer
        wrong.append(last)
        return logits if len(wrong) == 1 else logits.index_fill(0, torch.tensor([last]), 0.0).index_put((torch.tensor([last]), torch.tensor([0])), torch.tensor(9.0))

    monkeypatch.setattr("crashchat.pretrain.token_logits", foretold)
    assert own_scores(tmp_path / "model", config) == {kind: [count, count] for kind, count in asked.items()}
    first = kind_of(whole_lesson(FIRST_SEED)[0][0])
    assert own_scores(tmp_path / "model", config) == {kind: [count - (kind == first), count] for kind, count in asked.items()}


@pytest.mark.parametrize("question, kind", [
    ("State at 2.0?", "State"), ("When does the crash begin? Answer with one time in seconds.", "When does the crash begin"),
    ("Go on: Drivers should", "Go on"), ("What do they do? Answer in one sentence.", "What do they do"), ("Weather?", "Weather")])
def test_questions_that_differ_in_their_time_or_words_are_of_a_kind(question, kind):
    assert kind_of(question) == kind


def test_a_disk_without_room_for_the_frames_is_said_before_anything_is_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CrashchatError, match=r"frames\.npy: needs 0\.0 GB of disk, 0\.0 GB are free"):
        pretrain(tmp_path / "run", PretrainConfig(clips=6, processes=1))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json"]


def test_muon_is_torch_s_own_in_float32():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((20, 30), (30, 20), (20, 30), (8, 8))]
    theirs = [torch.nn.Parameter(matrix.detach().clone()) for matrix in ours]
    steppers = Muon(ours, lr=1e-2), torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    began = [matrix.detach().clone() for matrix in ours]
    for step in range(5):
        for one, other in zip(ours[: 3 + step % 2], theirs[: 3 + step % 2], strict=True):  # the last matrix has no gradient at first
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
    for one, other, first in zip(ours, theirs, began, strict=True):
        assert (one - other).norm() < 0.03 * (other - first).norm()  # theirs rounds to bfloat16


def some_updates() -> list[torch.Tensor]:
    "Matrices of three shapes, one of them alone, after three steps of Muon."
    torch.manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in 3 * [(20, 30)] + 4 * [(16, 16)] + [(30, 20)]]
    stepper = Muon(matrices, lr=1e-2)
    for _ in range(3):
        for matrix in matrices:
            matrix.grad = torch.randn_like(matrix)
        stepper.step()
    return [matrix.detach() for matrix in matrices]


def _some_updates_together(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    torch.save(some_updates(), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_processes_that_share_muon_s_work_come_to_the_same_matrices_bit_by_bit(tmp_path):
    spawn(_some_updates_together, (tmp_path,), nprocs=2)
    alone = some_updates()
    for rank in range(2):
        together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert len(together) == len(alone) and all(map(torch.equal, together, alone))
