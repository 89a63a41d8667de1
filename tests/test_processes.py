"One training shared by two processes: the same losses as by one, started by us or by torchrun, and gone on with after a loss."

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from pocket import saved_pocket

from crashchat.core import CrashchatError, read_json, read_jsonl, write_json
from crashchat.model import adapter_tensors, load_model
from crashchat.runs import app_named, fit, open_run, preview, take_part
from crashchat.simulate import make_set
from crashchat.train import resolve_config

COMMAND = str(Path(sys.executable).with_name("crashchat"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A data set of six clips and a random pocket model."
    root = tmp_path_factory.mktemp("processes")
    make_set(root / "data", {"train": 4, "val": 2}, workers=1)
    saved_pocket(root / "pocket")
    return root


def smoke(place, **changes):
    given = {"data": str(place / "data"), "model": str(place / "pocket"), "lora_rank": 4, "batch_questions": 20, "max_steps": 6, "eval_steps": 1,
             "precision": "fp32", **changes}
    return resolve_config("smoke", given)


def begun(place, folder, **changes):
    "An open run and its configuration."
    config, origins = smoke(place, **changes)
    return config, open_run(app_named("train"), config, origins, folder)


def told(run):
    "What the run wrote about each step."
    return [{name: value for name, value in row.items() if name not in ("questions_per_s", "waiting") and "score" not in name} for row in read_jsonl(run / "metrics.jsonl")]


def same(one, other):
    assert [row.keys() for row in one] == [row.keys() for row in other]
    for a, b in zip(one, other, strict=True):
        assert b == pytest.approx(a, rel=1e-4)


@pytest.fixture(scope="module")
def alone(place):
    "The run in one process."
    config, folder = begun(place, place / "runs" / "alone")
    fit(config, folder)
    return told(folder)


@pytest.fixture(scope="module")
def two(place):
    "The run in two processes."
    config, folder = begun(place, place / "runs" / "two", processes=2, val_score_clips=1)
    return fit(config, folder), told(folder)


def test_two_processes_learn_what_one_does(place, alone, two):
    result, rows = two
    assert result.steps == 6 and result.adapter == place / "runs" / "two" / "adapter"
    same(alone, rows)
    load_model(place / "pocket", result.adapter)
    scored = [row["val_score"] for row in read_jsonl(place / "runs" / "two" / "metrics.jsonl") if "val_score" in row]
    assert len(scored) == 6 and all(0 <= score <= 1 for score in scored)


def test_sharded_weights_learn_the_same_and_are_saved_whole(place, alone, two):
    config, folder = begun(place, place / "runs" / "sharded", processes=2, sharded=True, gradient_checkpointing=2)
    result = fit(config, folder)
    same(alone, told(folder))
    sharded, whole = adapter_tensors(result.adapter), adapter_tensors(two[0].adapter)
    assert sharded.keys() == whole.keys()
    for name, tensor in whole.items():
        assert (sharded[name] - tensor).abs().max() <= 1e-3 * tensor.abs().max(), name
    load_model(place / "pocket", result.adapter)


def test_torchrun_takes_the_same_command(place, alone):
    folder, (config, origins) = place / "runs" / "torchrun", smoke(place)
    words = [word for name, origin in origins.items() if origin == "override" for word in ("-p", f"{name}={getattr(config, name)}")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python", COMMAND, "train", "--run-dir", str(folder)]
    done = subprocess.run([*launcher, *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    same(alone, told(folder))
    assert (folder / "finished.json").is_file() and read_json(folder / "config.json")["values"]["processes"]["value"] == 2


def test_a_fault_in_the_data_is_one_line(place):
    config, folder = begun(place, place / "runs" / "fault", processes=2, strategy="crash_recognition_independent_monotask", lora_layers="9")
    with pytest.raises(CrashchatError, match="lora_layers='9'"):
        fit(config, folder)


def test_a_run_that_loses_a_process_goes_on(place, two):
    "The same steps and losses as one that lost none."
    config, folder = begun(place, place / "runs" / "broken", processes=2)
    call = "import sys, pathlib; from crashchat.runs import *; from crashchat.train import *; import json; " \
           "fit(TrainConfig(**json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))"
    values = {name: entry["value"] for name, entry in read_json(folder / "config.json")["values"].items()}
    process = subprocess.Popen([sys.executable, "-c", call, json.dumps(values), str(folder)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not list((folder / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        time.sleep(0.05)
    workers = [child for child in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    os.kill(workers[1].pid, signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "one of its 2 processes died" in said and "the same command continues" in said
    assert not (folder / "adapter").exists()
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE], "the others were left behind"
    assert fit(config, folder).steps == 6
    same(two[1], told(folder))


def test_a_preview_counts_and_leaves_no_run(place, tmp_path):
    config, _ = smoke(place)
    counted = preview({"data": config.data, "model": config.model, "profile": "smoke", "max_steps": "3"}, tmp_path / "runs")
    assert (counted.clips, counted.validation_clips, counted.steps, counted.unreadable) == (4, 2, 3, {})
    assert counted.cached == 6 and counted.uncached == 0 and counted.seconds > 0 and counted.advice == ""
    assert counted.tokens[0] <= counted.tokens[1] <= counted.tokens[2] <= counted.longest_pass
    assert 0 < counted.memory.peak_bytes < counted.available_bytes
    shown = str(counted)
    for part in ("4 to learn from, 2 to validate on, 0 that cannot be read", "6 clips kept, 0 encoded anew", "that are free (estimated"):
        assert part in shown
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["cache"]


@pytest.mark.parametrize("allowed, cores, processes, each", [(8, 6, 2, 3), (2, 6, 2, 2), (8, 2, 4, 1)])
def test_processes_share_the_cores(tmp_path, monkeypatch, allowed, cores, processes, each):
    "Each of them taking all made a step take thrice as long on two cores."
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # put back afterwards
    given, seen = torch.get_num_threads(), []

    def train(*_):
        seen.append(torch.get_num_threads())
        raise CrashchatError("training", "that is all")

    monkeypatch.setattr("crashchat.train.train", train)
    monkeypatch.setattr("crashchat.runs.usable_cores", lambda: cores)
    write_json(tmp_path / "config.json", {"values": {}})
    torch.set_num_threads(allowed)
    try:
        with pytest.raises(CrashchatError, match="that is all"):
            take_part(0, processes, 1, str(tmp_path))
    finally:
        torch.set_num_threads(given)
    assert seen == [each]
