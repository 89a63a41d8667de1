"The app notebooks: parameters equal to their dataclass, headless runs in the smoke profile, a killed training that goes on."

import ast
import inspect
import json
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import nbformat
import papermill
import pytest

from crashchat import runs
from crashchat.core import read_json, read_jsonl

APPS = Path(__file__).resolve().parents[1] / "nbs" / "apps"
COMMAND = str(Path(sys.executable).with_name("crashchat"))


def parameters_cell(name: str) -> ast.Module:
    "The parsed parameters cell of an app."
    cells = json.loads((APPS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return ast.parse(next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])))


@pytest.mark.parametrize("name", ["train", "evaluate", "compare", "study"])
def test_the_parameters_cell_is_the_dataclass(name):
    config = runs.app_named(name).config
    kinds = {item.name: item.type if isinstance(item.type, str) else inspect.formatannotation(item.type) for item in fields(config)}
    cell = [(line.target.id, ast.unparse(line.annotation), ast.literal_eval(line.value)) for line in parameters_cell(name).body]
    assert cell[:-1] == [(item.name, kinds[item.name], item.default) for item in fields(config)]
    assert cell[-1] == ("run_dir", "str | None", None)


def crashchat(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    "Run the installed command."
    return subprocess.run([COMMAND, *words], cwd=cwd, capture_output=True, text=True, timeout=600)


def begin(cwd: Path, *words: str) -> subprocess.Popen:
    "Start the installed command without waiting."
    return subprocess.Popen([COMMAND, *words], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_train_then_evaluate_then_resume_evaluation(workplace):
    trained = crashchat("train", "-p", "profile", "smoke", "-p", "strategy", "perception_centric_homogeneous_multitask", cwd=workplace)
    assert trained.returncode == 0, trained.stderr
    folder = workplace / trained.stdout.splitlines()[-1]
    assert folder.name.startswith("train-perception_centric_homogeneous_multitask-smoke-")
    assert (folder / "adapter").is_dir() and (folder / "finished.json").is_file()
    assert "100%" in trained.stderr, "no progress bar on the terminal"
    values = read_json(folder / "config.json")["values"]
    assert values["strategy"]["from"] == "override" and values["max_steps"]["from"] == "profile" and values["seed"]["from"] == "default"
    assert [row["step"] for row in read_jsonl(folder / "metrics.jsonl")][-1] == values["max_steps"]["value"]
    executed = nbformat.read(folder / "train.ipynb", 4)
    assert not [cell for cell in executed.cells if any(output.output_type == "error" for output in cell.get("outputs", []))]
    assert "image/png" in executed.cells[-1].outputs[-1].data, "the chart needs a network or a running kernel to be seen"

    words = ["evaluate", "-p", "profile", "smoke", "-p", "control", "black", "-p", "adapter", str((folder / "adapter").relative_to(workplace))]
    evaluated = crashchat(*words, cwd=workplace)
    assert evaluated.returncode == 0, evaluated.stderr
    scored = workplace / evaluated.stdout.splitlines()[-1]
    assert {row["who"] for row in read_json(scored / "scores.json")} >= {"model", "best constant", "black frames"}
    assert (scored / "predictions.jsonl").is_file() and (scored / "evaluate.ipynb").is_file()
    assert read_json(scored / "breakdown.json")

    bare = crashchat("evaluate", "-p", "profile", "smoke", cwd=workplace)
    names = [str((workplace / done.stdout.splitlines()[-1]).relative_to(workplace)) for done in (bare, evaluated)]
    compared = crashchat("compare", *names, "-p", "profile", "smoke", cwd=workplace)
    assert compared.returncode == 0, compared.stderr
    shown = workplace / compared.stdout.splitlines()[-1]
    assert shown.name.startswith("compare-all-smoke-") and (shown / "finished.json").is_file()
    tables = read_json(shown / "comparison.json")
    assert tables["runs"] == [Path(name).name for name in names]
    assert {row["field"] for row in tables["settings"]} == {"adapter", "control"} and len(tables["differences"]) == 12
    refused = crashchat("compare", names[0], cwd=workplace)
    assert refused.returncode == 2 and refused.stderr.startswith("crashchat: compare: runs=") and refused.stderr.count("\n") == 1
    refused = crashchat("compare", names[0], str(folder.relative_to(workplace)), cwd=workplace)
    assert refused.returncode == 2 and "app='train' is not the record of an evaluation" in refused.stderr


def test_a_killed_training_is_continued_by_the_same_command_to_the_same_step(workplace, tmp_path):
    for name in ("data", "ckpt"):
        (tmp_path / name).symlink_to(workplace / name)
    words = ["train", "-p", "profile", "smoke", "-p", "max_steps", "12", "-p", "eval_steps", "2", "-p", "patience", "20"]
    killed = begin(tmp_path, *words)
    deadline = time.monotonic() + 500
    while not list(tmp_path.glob("runs/train-*/checkpoints/checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    again = crashchat(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    [folder] = tmp_path.glob("runs/train-*")
    assert f"continuing runs/{folder.name}" in again.stderr and again.stdout.splitlines()[-1] == f"runs/{folder.name}"
    steps = [row["step"] for row in read_jsonl(folder / "metrics.jsonl") if "val_loss" in row]
    assert steps == [2, 4, 6, 8, 10, 12]
    assert len(read_json(folder / "provenance.json")["continued"]) == 1


def test_a_missing_data_folder_is_one_line(workplace, tmp_path):
    (tmp_path / "ckpt").symlink_to(workplace / "ckpt")
    done = crashchat("train", "-p", "profile", "smoke", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("crashchat: data/demo")


def test_a_wrong_parameter_starts_nothing(tmp_path):
    for words, message in {("epoch", "2"): "did you mean epochs", ("epochs", "abc"): "epochs='abc' must be int",
                           ("strategy", "all"): "strategy='all' unknown strategy"}.items():
        done = crashchat("train", "-p", *words, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_review_cases_runs_from_top_to_bottom(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    executed = papermill.execute_notebook(APPS / "review_cases.ipynb", tmp_path / "out.ipynb", progress_bar=False)
    shown = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in shown)
