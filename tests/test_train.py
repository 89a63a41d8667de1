import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields

import pytest
from pocket import saved_pocket, write_video
from transformers import Trainer

from crashchat.cases import write_cases
from crashchat.core import Case, CrashchatError, read_jsonl
from crashchat.infer import Analyst
from crashchat.tasks import LINGUISTIC_TASKS, OWN_QUESTIONS
from crashchat.train import PROFILES, TrainConfig, last_checkpoint, resolve_config, take_back, train


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A data folder of six tiny clips and a random pocket model."
    root = tmp_path_factory.mktemp("place")
    for split, count in (("train", 4), ("val", 2)):
        cases = []
        for index in range(count):
            name = f"videos/{split}_{index}.mp4"
            write_video(root / "data" / name, seconds=1.0, seed=index)
            truth = {
                "crash_recognition": "Yes" if index % 2 else "No",
                "crash_description": "car hits truck" if index % 2 else "no collision.",
                "crash_localization": "0.2 - 0.8 seconds",
            }
            if index % 2 == 0:
                del truth["crash_localization"]
            cases.append(Case(name.removesuffix(".mp4"), root / "data" / name, truth, "made", split))
        write_cases(root / "data", cases, split, OWN_QUESTIONS, "tiny")
    saved_pocket(root / "pocket")
    return root


def smoke(place, **changes):
    return resolve_config("smoke", {"data": str(place / "data"), "model": str(place / "pocket"), "lora_rank": 4, **changes})[0]


def test_defaults_are_the_published_recipe():
    recipe = TrainConfig()
    assert (recipe.lora_rank, recipe.lora_alpha, recipe.lora_dropout) == (64, 16, 0.05)
    assert (recipe.learning_rate, recipe.warmup_ratio, recipe.weight_decay, recipe.batch_questions) == (1e-5, 0.1, 0.0, 24)
    assert (recipe.eval_steps, recipe.patience, recipe.min_improvement, recipe.precision) == (50, 3, 0.001, "bf16")
    assert recipe.planned_epochs == 10
    assert TrainConfig(strategy="crash_recognition_independent_monotask").planned_epochs == 20


@pytest.mark.parametrize("profile", PROFILES)
def test_every_field_knows_where_it_came_from(profile):
    config, origins = resolve_config(profile, {"seed": 7})
    assert set(origins) == {item.name for item in fields(TrainConfig)}
    assert origins["seed"] == "override" and config.seed == 7 and config.profile == profile
    for name, origin in origins.items():
        if origin == "profile":
            assert getattr(config, name) == PROFILES[profile][name]
        if origin == "default":
            assert getattr(config, name) == getattr(TrainConfig(), name)


@pytest.mark.parametrize("field,value", [
    ("strategy", "all_of_them"), ("profile", "huge"), ("average", "clips"), ("precision", "fp8"), ("learning_rate", 0.0),
    ("learning_rate", math.nan), ("lora_rank", -1), ("epochs", -1), ("patience", 0), ("batch_questions", 0),
])
def test_senseless_values_are_refused_by_name(field, value):
    with pytest.raises(CrashchatError, match=f"{field}="):
        TrainConfig(**{field: value})


def test_unknown_names_are_refused():
    with pytest.raises(CrashchatError, match="unknown parameter"):
        resolve_config("smoke", {"learning_rat": 1.0})
    with pytest.raises(CrashchatError, match="profile='tiny'"):
        resolve_config("tiny", {})


def test_the_loss_falls_and_the_adapter_answers(place, tmp_path):
    result = train(smoke(place, max_steps=30, eval_steps=15, learning_rate=5e-3), tmp_path / "runs" / "one")
    rows = read_jsonl(tmp_path / "runs" / "one" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] / 2
    assert [row["step"] for row in rows if "val_loss" in row] == [15, 30]
    assert (result.steps, result.clips, result.questions) == (30, 4, 4 * 2 + 2)
    assert result.val_loss == pytest.approx(min(row["val_loss"] for row in rows if "val_loss" in row))
    analyst = Analyst.load(place / "pocket", result.adapter, device="cpu")
    answers = analyst.ask(place / "data" / "videos" / "train_1.mp4", ["crash_recognition", "crash_description"])
    assert answers[0].adapter == "one" and [a.text for a in answers] == ["Yes", "car hits truck"]
    assert set(analyst.base.adapter.questions) == {"crash_recognition", "crash_description", "crash_localization"}


@pytest.mark.parametrize("average", ["tokens", "questions"])
def test_accumulating_clip_by_clip_is_one_large_pass(place, tmp_path, average):
    reports = []
    for clips_per_pass in (4, 1):  # four clips a step either way
        config = smoke(place, max_steps=2, eval_steps=1, batch_questions=10, clips_per_pass=clips_per_pass, average=average)
        train(config, tmp_path / str(clips_per_pass))
        rows = read_jsonl(tmp_path / str(clips_per_pass) / "metrics.jsonl")
        reports.append([(row["loss"], row["grad_norm"]) for row in rows if "loss" in row])
    assert len(reports[0]) == 2 and min(reports[0][0]) > 0.01
    for whole, accumulated in zip(*reports, strict=True):
        assert accumulated == pytest.approx(whole, rel=1e-3)


def test_a_disk_that_fills_while_a_checkpoint_is_written_is_one_line(place, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/7: file write failed")

    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(CrashchatError, match="checkpoints: cannot be written: no space left"):
        train(smoke(place), tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_clip_that_cannot_be_read_stops_the_run_before_it_starts(place, tmp_path):
    clip = place / "data" / "videos" / "train_2.mp4"
    whole = clip.read_bytes()
    try:
        clip.write_bytes(whole[:200])
        with pytest.raises(CrashchatError, match=r"1 of 4 train clips cannot be read.*train_2"):
            train(smoke(place), tmp_path / "run")
        assert not (tmp_path / "run" / "adapter").exists()
    finally:
        clip.write_bytes(whole)


def test_a_strategy_without_examples_is_refused(place, tmp_path):
    with pytest.raises(CrashchatError, match="pre_crash_localization"):
        train(smoke(place, strategy="pre_crash_localization_independent_monotask"), tmp_path)


def test_torn_checkpoints_are_passed_over(tmp_path):
    for step, state in ((2, '{"global_step": 2}'), (4, '{"global'), (10, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2"]
    assert last_checkpoint(tmp_path / "none") is None


def test_metrics_of_steps_to_be_repeated_are_taken_back(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    take_back(log, 2)
    assert read_jsonl(log) == [{"step": 1}, {"step": 2}]
    take_back(tmp_path / "absent.jsonl", 2)


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(place, tmp_path):
    config = {"data": str(place / "data"), "model": str(place / "pocket"), "lora_rank": 4, "max_steps": 12, "eval_steps": 3}
    call = (
        "import sys, json; from crashchat.train import resolve_config, train; "
        "print(train(resolve_config('smoke', json.loads(sys.argv[1]))[0], sys.argv[2]).steps)"
    )
    command = [sys.executable, "-c", call, json.dumps(config)]
    unbroken = train(smoke(place, max_steps=12, eval_steps=3), tmp_path / "unbroken")
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not list((tmp_path / "killed" / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "adapter").exists()
    result = train(smoke(place, max_steps=12, eval_steps=3), tmp_path / "killed")
    assert result.steps == unbroken.steps == 12
    logs = [[row for row in read_jsonl(tmp_path / name / "metrics.jsonl") if "val_loss" in row] for name in ("unbroken", "killed")]
    assert [row["step"] for row in logs[1]] == [3, 6, 9, 12]
    assert [row["val_loss"] for row in logs[1]] == pytest.approx([row["val_loss"] for row in logs[0]], rel=1e-3)


def test_only_the_strategys_tasks_are_learnt(place, tmp_path):
    result = train(smoke(place, strategy="linguistic_centric_homogeneous_multitask", max_steps=1, eval_steps=1), tmp_path / "run")
    card = json.loads((result.adapter / "crashchat_adapter.json").read_text())
    assert card["strategy"] == "linguistic_centric_homogeneous_multitask"
    assert set(card["questions"]) <= set(LINGUISTIC_TASKS)
