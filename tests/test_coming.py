"Every command on the page for people who come from the original runs, in the order of its table."

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub import Hub, hub_served
from original import write_lora, write_training
from pocket import SHARED, pocket, write_video

from crashchat.cases import read_cases, read_questions, write_cases
from crashchat.core import Case, write_json
from crashchat.tasks import OWN_QUESTIONS, TASKS, not_published

ROOT = Path(__file__).resolve().parents[1]
PAGE = "\n".join("".join(cell["source"]) for cell in json.loads((ROOT / "nbs" / "coming_from_crashchat.ipynb").read_text())["cells"])
STEPS = [row.split("|")[2].strip().strip("`") for row in re.findall(r"^\|.*crashchat .*\|$", PAGE, re.M) if row.count("|") == 4 and "nbs/" not in row]
BASE, TUNED = "videollama3_baseline", "crash_localization_independent_monotask"
MODELS, ANNOTATED = SHARED / "reference" / "model", SHARED / "annotations" / "crashchat"
recorded = pytest.mark.skipif(not MODELS.is_dir(), reason="the recordings of the original are not here")
CRASH = {"crash_recognition": "Yes", "crash_description": "car hits car", "causal_reasoning": "Vehicles drive too fast.",
         "prevention_reasoning": "Drive slowly.", "pre_crash_localization": "0.5 seconds", "crash_localization": "1.0 - 1.5 seconds"}
NORMAL = {name: task.normal_answer for name, task in TASKS.items() if task.normal_answer}
CLIPS = {"train": 4, "val": 3, "test": 4}


def put_weights(folder: Path):
    "The recorded checkpoints where they are, else models of our own written the same way."
    if MODELS.is_dir():
        for theirs, ours in (("baseline", BASE), ("lora_checkpoint", TUNED), ("vision_navit", "vision_navit")):
            shutil.copytree(MODELS / theirs, folder / ours)
    else:
        tokenizer, model = pocket()
        write_training(folder / BASE, model, tokenizer)
        write_lora(folder / TUNED, model, tokenizer)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the recordings are read-only


def put_data(root: Path):
    "Clips and annotation files under the published names; in the published words where those are known."
    words = read_questions(ANNOTATED) if ANNOTATED.is_dir() else OWN_QUESTIONS
    for split, count in CLIPS.items():
        cases = []
        for number in range(count):
            crash = number % 4 != 1
            video = write_video(root / "videos" / f"{'cap_43' if crash else 'd2city'}_{len(split)}{number:05d}.mp4", seed=number)
            cases.append(Case(video.stem, video, CRASH if crash else NORMAL, "MM-AU-CAP" if crash else "D2City", split))
        write_cases(root, cases, split, words, "crashchat_dada_video_total")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    put_weights(root / "published" / "ckpt")
    put_data(root)
    Hub.files = {path.relative_to(root / "published").as_posix(): path.read_bytes()
                 for path in sorted((root / "published").rglob("*")) if path.is_file()}
    (root / "ckpt").mkdir()
    (root / "published" / "ckpt" / "vision_navit").rename(root / "ckpt" / "vision_navit")
    rows = [{"video_path": f"videos/cap_43_4{n:05d}.mp4", "gt_time": 0.5, "pred_time": 0.6, "raw_response": "0.6 seconds"} for n in (0, 2, 3)]
    write_json(root / "predictions" / "pre_crash_localization.json", rows)
    return root


def run(line: str, root: Path) -> str:
    "What a line of the page prints, with the few-steps profile where the published recipe would want a GPU."
    if "crashchat train" in line or "crashchat evaluate" in line:
        line += " -p profile smoke" + (" -p limit 0" if "evaluate" in line else "")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(line, shell=True, cwd=root, env={**hub_served(root / "home"), "PATH": path}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def last(printed: str) -> str:
    "The last line, where every command puts its result."
    return printed.strip().splitlines()[-1]


def test_the_page_has_its_steps():
    assert [line.split("crashchat ")[1].split()[0] for line in STEPS] == [
        "zoo", "zoo", "prepare", "audit", "train", "train", "merge", "convert", "evaluate", "score", "ask"]


def test_every_step_runs_in_its_order(project):
    said = {number: run(line, project) for number, line in enumerate(STEPS)}
    assert last(said[0]) == f"ckpt/{BASE}" and last(said[1]) == f"ckpt/{TUNED}"
    assert len(re.findall(r"\bhere\b", run("crashchat zoo", project).replace("not here", ""))) >= 2
    prepared = read_cases(project / "data" / "crashchat")
    assert len(prepared) == sum(CLIPS.values()) and all(case.video.is_file() for case in prepared)
    assert "source" in said[3]
    for number in (4, 5):
        assert (project / last(said[number]) / "adapter" / "adapter_model.safetensors").is_file()
    for number in (6, 7):
        assert float(re.findall(r"largest difference of a logit: (\S+)", said[number])[0]) < 1e-3
    assert (project / "ckpt" / "merged" / "model.safetensors").is_file() and (project / "ckpt" / "native" / "model.safetensors").is_file()
    scores = json.loads((project / last(said[8]) / "scores.json").read_text())
    assert {"model", "best constant", "model, published reading", "independent", "heterogeneous"} <= {row["who"] for row in scores}
    asked = json.loads((project / last(said[8]) / "questions.json").read_text())
    assert asked["questions"] == dict(read_questions(project / "data" / "crashchat").questions)
    assert "pre_crash_localization" in said[9] and "every clip" in said[9]
    assert f"{sum(CLIPS.values())} answered + 0 refused" in said[10]


@recorded
def test_the_published_annotations_and_predictions_go_the_same_way(tmp_path):
    (tmp_path / "videos").mkdir()
    shutil.copytree(ANNOTATED, tmp_path / "annotations")
    shutil.copytree(SHARED / "reference" / "metrics", tmp_path / "predictions")
    (tmp_path / "predictions" / "reference_scores.json").rename(tmp_path / "wanted.json")
    prepare, audit, score = (next(line for line in STEPS if f"crashchat {name} " in line) for name in ("prepare", "audit", "score"))
    run(prepare, tmp_path)
    assert not_published(read_questions(tmp_path / "data" / "crashchat")) == []
    assert len(read_cases(tmp_path / "data" / "crashchat")) == 1838 + 1839
    assert "gives the answer away" in run(audit, tmp_path)
    printed = run(score, tmp_path)
    wanted = json.loads((tmp_path / "wanted.json").read_text())
    for task, metric, value in (("crash_recognition", "F1", wanted["crash_recognition"]["F1"]),
                                ("crash_localization", "mIoU", wanted["crash_localization"]["mIoU"]),
                                ("pre_crash_localization", "TTA MAE [s]", wanted["pre_crash_localization"]["TTA_MAE"]),
                                ("causal_reasoning", "BLEU", wanted["causal_reasoning"]["BLEU"])):
        assert re.search(rf"^{task} +{re.escape(metric)} +published {value:.4f} ", printed, re.M), (task, metric)


def test_the_table_in_the_readme_names_commands_of_the_page():
    table = (ROOT / "README.md").read_text().split("## Coming from CrashChat")[1].split("\n## ")[0]
    named = set(re.findall(r"`crashchat (\w+)", table))
    assert named and named <= {line.split("crashchat ")[1].split()[0] for line in STEPS}
