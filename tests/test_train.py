import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields

import pytest
import torch
from pocket import saved_pocket, write_video
from transformers import Trainer

from crashchat.cases import read_cases, write_cases
from crashchat.core import Case, CrashchatError, read_jsonl
from crashchat.features import encode_frames
from crashchat.infer import Analyst
from crashchat.model import load_model
from crashchat.packing import Visit, join, pack, token_losses
from crashchat.preprocess import clip_prefix, encode_question, read_clip
from crashchat.tasks import LINGUISTIC_TASKS, OWN_QUESTIONS
from crashchat.train import (
    AHEAD,
    PROFILES,
    Examples,
    Reader,
    TrainConfig,
    adapted,
    last_checkpoint,
    make_trainer,
    prepare,
    resolve_config,
    take_back,
    train,
)


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
    result = train(smoke(place, max_steps=60, eval_steps=30, learning_rate=5e-3), tmp_path / "runs" / "one")
    rows = read_jsonl(tmp_path / "runs" / "one" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] / 2
    assert [row["step"] for row in rows if "val_loss" in row] == [30, 60]
    assert (result.steps, result.clips, result.questions) == (60, 4, 4 * 2 + 2)
    assert result.peak_bytes is None or 0 < result.peak_bytes < 4 << 30
    assert result.val_loss == pytest.approx(min(row["val_loss"] for row in rows if "val_loss" in row))
    analyst = Analyst.load(place / "pocket", result.adapter, device="cpu")
    answers = analyst.ask(place / "data" / "videos" / "train_1.mp4", ["crash_recognition", "crash_description"])
    assert answers[0].adapter == "one" and [a.text for a in answers] == ["Yes", "car hits truck"]
    assert set(analyst.base.adapter.questions) == {"crash_recognition", "crash_description", "crash_localization"}


def reports(run):
    "Loss and gradient norm of each reported step."
    return [(row["loss"], row["grad_norm"]) for row in read_jsonl(run / "metrics.jsonl") if "loss" in row]


@pytest.mark.parametrize("average", ["tokens", "questions"])
def test_many_short_passes_are_one_long_one(place, tmp_path, average):
    for tokens in (4000, 1):  # four clips a step either way: in one row, or each in its own
        config = smoke(place, max_steps=2, eval_steps=1, batch_questions=10, tokens_per_pass=tokens, average=average, precision="fp32")
        train(config, tmp_path / str(tokens))
    assert len(reports(tmp_path / "1")) == 2 and min(reports(tmp_path / "1")[0]) > 0.01
    for whole, parts in zip(reports(tmp_path / "4000"), reports(tmp_path / "1"), strict=True):
        assert parts == pytest.approx(whole, rel=1e-5)


def test_from_pixels_is_as_from_the_cache(place, tmp_path):
    for name, room in (("cached", 1.0), ("cramped", 1e-6), ("pixels", 0.0)):
        train(smoke(place, max_steps=2, eval_steps=1, precision="fp32", cache_gib=room), tmp_path / name / "run")
    different = {path.read_bytes() for path in (place / "data" / "videos").iterdir()}  # some clips are twins
    assert len(list((tmp_path / "cached" / "cache" / "features").glob("*.safetensors"))) == len(different)
    assert not list(tmp_path.glob("cramped/cache/features/*.safetensors")) and not (tmp_path / "pixels" / "cache").exists()
    for name in ("cramped", "pixels"):
        for cached, other in zip(reports(tmp_path / "cached" / "run"), reports(tmp_path / name / "run"), strict=True):
            assert other == pytest.approx(cached, rel=1e-6)


@pytest.mark.parametrize("every", [1, 3])
def test_recomputing_layers_changes_nothing_learnt(place, tmp_path, every):
    for name, recomputed in (("kept", 0), ("recomputed", every)):
        train(smoke(place, max_steps=2, eval_steps=1, precision="fp32", gradient_checkpointing=recomputed), tmp_path / name)
    for kept, again in zip(reports(tmp_path / "kept"), reports(tmp_path / "recomputed"), strict=True):
        assert again == pytest.approx(kept, rel=1e-6)


def test_a_task_weighs_what_it_is_given(place, tmp_path):
    rows = {}
    for name, weights in (("plain", ""), ("heavy", "crash_recognition=1000000")):
        train(smoke(place, max_steps=1, eval_steps=1, precision="fp32", task_weights=weights), tmp_path / name)
        (rows[name],) = (row for row in read_jsonl(tmp_path / name / "metrics.jsonl") if "val_loss" in row)
    assert rows["heavy"]["val_loss"] == pytest.approx(rows["heavy"]["val_loss_crash_recognition"], rel=1e-4)
    assert rows["plain"]["val_loss"] != pytest.approx(rows["plain"]["val_loss_crash_recognition"], rel=1e-2)


def test_the_validation_loss_is_the_mean_over_all_answer_tokens(place, tmp_path):
    train(smoke(place, max_steps=1, eval_steps=1, precision="fp32", average="tokens", learning_rate=1e-12, projector_learning_rate=1e-12), tmp_path / "run")
    (row,) = (row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "val_loss" in row)
    base, losses = load_model(place / "pocket"), {}
    for case in read_cases(place / "data", "val"):
        clip = read_clip(case.video, base.card)
        prefix = clip_prefix(clip.times_s.tolist(), clip.kept.sum(-1).tolist(), base.tokenizer, base.model.config.video_token_id)
        for task, answer in case.truth.items():
            packed = pack(prefix, [encode_question(OWN_QUESTIONS[task], answer, base.tokenizer)])
            losses.setdefault(task, []).append(token_losses(base.model, join([packed], [encode_frames(base.model, clip)])).detach())
    every = torch.cat([loss for task in losses.values() for loss in task])
    assert row["val_loss"] == pytest.approx(every.mean().item(), rel=1e-5)
    assert row["val_loss_crash_localization"] == pytest.approx(torch.cat(losses["crash_localization"]).mean().item(), rel=1e-5)


def test_clips_are_read_ahead_but_never_more_than_stated(place):
    base = load_model(place / "pocket")
    cases = read_cases(place / "data", "train") * 10
    examples, begun, used = Examples(cases, ["crash_recognition"], OWN_QUESTIONS, base, None, {}, "tokens"), [], []
    load = examples.load
    examples.load = lambda visit: (begun.append(visit), load(visit))[1]
    most = 0
    for _ in Reader(examples, workers=2).passes([tuple((Visit(index, ("crash_recognition",)),) for index in range(len(cases)))]):
        time.sleep(0.01)
        used.append(1)
        most = max(most, len(begun) - len(used))
    assert len(used) == len(cases) == len(begun) and 1 <= most <= AHEAD * 2


@pytest.mark.parametrize("field,text", [
    ("task_weights", "crash=1"), ("task_weights", "crash_recognition"), ("task_weights", "crash_recognition=0"), ("task_weights", "crash_recognition=nan"),
    ("task_weights", "crash_recognition=inf"), ("task_shares", "crash_recognition=1.1"), ("report_to", "mlflow"), ("lora_kind", "lokr"),
    ("best_by", "score"), ("sharded", True), ("cache_gib", -1.0), ("processes", 0), ("workers", 0),
])
def test_more_senseless_values_are_refused_by_name(field, text):
    with pytest.raises(CrashchatError, match=f"{field}="):
        TrainConfig(**{field: text})


@pytest.mark.parametrize("kind", ["dora", "rslora"])
def test_other_adapters_learn_load_and_differ(place, tmp_path, kind):
    config = smoke(place, max_steps=2, eval_steps=1, lora_kind=kind, lora_layers="1,3")
    result = train(config, tmp_path / kind)
    tuned = load_model(place / "pocket", result.adapter).model
    touched = {name.split("layers.")[1].split(".")[0] for name, _ in tuned.named_parameters() if "lora_A" in name}
    assert touched == {"1", "3"}


def test_layers_that_are_not_there_are_refused_before_a_clip_is_read(place, tmp_path):
    with pytest.raises(CrashchatError, match="lora_layers='2-9'"):
        train(smoke(place, lora_layers="2-9"), tmp_path / "run")
    assert not (tmp_path / "cache").exists()


def test_fp16_needs_a_gpu(place, tmp_path):
    with pytest.raises(CrashchatError, match="precision='fp16'"):
        train(smoke(place, precision="fp16"), tmp_path / "run")


def test_the_best_state_can_be_chosen_by_a_score(place, tmp_path):
    seen, scores = [], iter([0.2, 0.9, 0.4])

    def judge(examples, cases):
        seen.append([case.case_id for case in cases])
        answers = Analyst(examples.base, OWN_QUESTIONS).ask(cases[0], ["crash_recognition"])
        return {"score": next(scores), "answers": len(answers)}

    config = smoke(place, max_steps=3, eval_steps=1, val_score_clips=1, best_by="score")
    result = train(config, tmp_path / "run", judge)
    assert result.best_step == 2 and seen == [["videos/val_0"]] * 3
    rows = [row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "val_score" in row]
    assert [row["val_score"] for row in rows] == [0.2, 0.9, 0.4] and rows[0]["val_answers"] == 1


def test_gradients_of_tasks_are_compared_as_if_each_were_asked_alone(place, tmp_path):
    config = smoke(place, max_steps=1, conflict_clips=2, average="questions")
    prepared = prepare(config, tmp_path / "cache")
    tuned = adapted(prepared)
    trainer = make_trainer(tuned, prepared, tmp_path / "run", None)
    found = trainer.cosines()
    learnt = [tensor for tensor in tuned.parameters() if tensor.requires_grad]
    assert all(tensor.grad is None for tensor in learnt)
    alone = {}
    for task in LINGUISTIC_TASKS[:2]:
        for clip in range(2):
            for item in Reader(prepared.validation, 1).passes([((Visit(clip, (task,)),),)]):
                (tuned(item.row) * item.row.weights).sum().backward()
        alone[task] = torch.cat([tensor.grad.flatten() for tensor in learnt])
        tuned.zero_grad()
    one, other = LINGUISTIC_TASKS[:2]
    assert found[f"cosine_{one}~{other}"] == pytest.approx(torch.nn.functional.cosine_similarity(*alone.values(), dim=0).item(), abs=1e-4)
    assert len(found) == 3 and all(-1 <= value <= 1 for value in found.values())  # val_1 alone tells when it happened


def test_the_log_holds_how_far_gradients_agree(place, tmp_path):
    train(smoke(place, max_steps=2, eval_steps=1, conflict_clips=1), tmp_path / "run")
    rows = [row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "val_loss" in row]
    assert len(rows) == 2 and all(sum(name.startswith("val_cosine_") for name in row) == 1 for row in rows)


def test_a_loss_that_is_no_number_ends_the_run(place, tmp_path, monkeypatch):
    monkeypatch.setattr("crashchat.train.token_losses", lambda model, row: token_losses(model, row) * math.nan)
    with pytest.raises(CrashchatError, match="loss=nan at step 1: nothing more can be learnt"):
        train(smoke(place, max_steps=2, eval_steps=1), tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()


def test_metrics_also_go_to_tensorboard(place, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(smoke(place, max_steps=2, eval_steps=1, report_to="tensorboard"), tmp_path / "run")
    (written,) = (tmp_path / "run").rglob("events.out.tfevents.*")
    told = events.EventAccumulator(str(written)).Reload()
    rows = [row["loss"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert [event.value for event in told.Scalars("train/loss")] == pytest.approx(rows)
    assert len(told.Scalars("eval/loss_crash_recognition")) == 2


def test_a_reporter_that_is_not_installed_is_said_beforehand(monkeypatch):
    monkeypatch.setattr("crashchat.train.find_spec", lambda name: None)
    with pytest.raises(CrashchatError, match="report_to='wandb' is not installed here"):
        TrainConfig(report_to="wandb")


def test_metrics_say_how_fast_it_is_and_how_long_it_waited(place, tmp_path):
    train(smoke(place, max_steps=2, eval_steps=1), tmp_path / "run")
    rows = [row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert all(row["questions_per_s"] > 0 and 0 <= row["waiting"] <= 1 for row in rows)


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
        assert "videos/train_2" in (tmp_path / "run" / "quarantine.csv").read_text()
        result = train(smoke(place, max_steps=1, eval_steps=1, leave_out_unreadable=True), tmp_path / "without")
        assert result.clips == 3 and len((tmp_path / "without" / "quarantine.csv").read_text().splitlines()) == 2
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
        (folder / "rng_state.pth").touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2"]
    assert last_checkpoint(tmp_path / "none") is None


def test_a_checkpoint_needs_a_part_from_each_process(tmp_path):
    for step, ranks in ((1, 2), (2, 1)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")
        for rank in range(ranks):
            (folder / f"rng_state_{rank}.pth").touch()
    assert last_checkpoint(tmp_path, processes=2) == tmp_path / "checkpoint-1"


def test_metrics_of_steps_to_be_repeated_are_taken_back(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    take_back(log, 2)
    assert read_jsonl(log) == [{"step": 1}, {"step": 2}]
    take_back(tmp_path / "absent.jsonl", 2)


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(place, tmp_path):
    config = {"data": str(place / "data"), "model": str(place / "pocket"), "lora_rank": 4, "max_steps": 12, "eval_steps": 3, "lora_dropout": 0.2}
    call = (
        "import sys, json; from crashchat.train import resolve_config, train; "
        "print(train(resolve_config('smoke', json.loads(sys.argv[1]))[0], sys.argv[2]).steps)"
    )
    command = [sys.executable, "-c", call, json.dumps(config)]
    unbroken = train(smoke(place, max_steps=12, eval_steps=3, lora_dropout=0.2), tmp_path / "unbroken")
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not list((tmp_path / "killed" / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "adapter").exists()
    result = train(smoke(place, max_steps=12, eval_steps=3, lora_dropout=0.2), tmp_path / "killed")
    assert result.steps == unbroken.steps == 12
    for whole, mended in zip(reports(tmp_path / "unbroken"), reports(tmp_path / "killed"), strict=True):
        assert mended == pytest.approx(whole, rel=1e-6)
    logs = [[row for row in read_jsonl(tmp_path / name / "metrics.jsonl") if "val_loss" in row] for name in ("unbroken", "killed")]
    assert [row["step"] for row in logs[1]] == [3, 6, 9, 12]
    assert [row["val_loss"] for row in logs[1]] == pytest.approx([row["val_loss"] for row in logs[0]], rel=1e-6)


def test_only_the_strategys_tasks_are_learnt(place, tmp_path):
    result = train(smoke(place, strategy="linguistic_centric_homogeneous_multitask", max_steps=1, eval_steps=1), tmp_path / "run")
    card = json.loads((result.adapter / "crashchat_adapter.json").read_text())
    assert card["strategy"] == "linguistic_centric_homogeneous_multitask"
    assert set(card["questions"]) <= set(LINGUISTIC_TASKS)
