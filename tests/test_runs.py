"Parameters are refused before anything starts, a run has one writer, and the same command continues what was killed."

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nbformat
import pytest

from crashchat import runs
from crashchat.core import CrashchatError, read_json, read_jsonl, write_json

TOY = '''
"An app for tests: the kernel imports it too."
from dataclasses import dataclass, fields
from pathlib import Path
from crashchat.runs import App

@dataclass(frozen=True)
class ToyConfig:
    profile: str = "smoke"
    rows: int = 2
    pause_s: float = 0.0
    fault: str | None = None

PROFILES = {"smoke": {}, "slow": {"pause_s": 0.01, "rows": 5}}

def resolve(given):
    profile = PROFILES[given.get("profile", "smoke")]
    origins = {f.name: "override" if f.name in given else "profile" if f.name in profile else "default" for f in fields(ToyConfig)}
    return ToyConfig(**{**profile, **given}), origins

def toy():
    return App("toy", ToyConfig, resolve, lambda config: "toy", Path(__file__).with_name("toy.ipynb"))
'''
PARAMETERS = 'profile = "smoke"\nrows = 2\npause_s = 0.0\nfault = None\nrun_dir = None'
WORK = """
import os, sys, time
from toyapp import toy
from crashchat.core import CrashchatError, append_jsonl
from crashchat.runs import notebook_config, recorded_run
config, origins = notebook_config(toy(), globals())
with recorded_run(toy(), config, origins, run_dir) as folder:
    append_jsonl(folder / "metrics.jsonl", [{"started": os.getpid()}])
    if config.fault == "user":
        raise CrashchatError("data/demo", "holds no clips", "split", "train")
    if config.fault == "defect":
        1 / 0
    if config.fault == "death":
        os._exit(1)
    for row in range(config.rows):
        append_jsonl(folder / "metrics.jsonl", [{"row": row}])
        print("row", row, file=sys.stderr, flush=True)
        time.sleep(config.pause_s)
from tqdm.auto import tqdm
for _ in tqdm([1, 2], desc="toy bar"):
    pass
print("all rows")
"""


@dataclass(frozen=True)
class Kinds:
    "One field of each kind that a config may have."

    word: str = "a"
    count: int = 1
    rate: float = 0.5
    quick: bool = False
    maybe: int | None = None
    mode: Literal["fast", "slow"] = "fast"


@pytest.fixture
def toy_folder(tmp_path, monkeypatch) -> Path:
    "A folder with the toy app, importable here and in the kernel."
    (tmp_path / "toyapp.py").write_text(TOY)
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(WORK)]
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "toy.ipynb")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toyapp", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toy(toy_folder):
    "The toy app."
    import toyapp

    return toyapp.toy()


def test_strings_become_the_annotated_type():
    given = {"word": "2", "count": "2", "rate": "1e-3", "quick": "true", "maybe": "3", "mode": "slow"}
    assert runs.check_parameters(Kinds, given) == {"word": "2", "count": 2, "rate": 1e-3, "quick": True, "maybe": 3, "mode": "slow"}
    assert runs.check_parameters(Kinds, {"maybe": "none", "quick": "no", "rate": "2"}) == {"maybe": None, "quick": False, "rate": 2.0}


@pytest.mark.parametrize("name, value, wanted", [
    ("count", "abc", "int"), ("count", "1.5", "int"), ("count", "", "int"), ("count", "none", "int"), ("rate", "1,5", "float"),
    ("quick", "perhaps", "bool"), ("maybe", "x", "int | None"), ("mode", "swift", "fast | slow"), ("count", None, "int"),
])
def test_an_ill_typed_value_is_named_with_its_field(name, value, wanted):
    with pytest.raises(CrashchatError, match=rf"^train: {name}={value!r} must be {wanted}".replace("|", r"\|")) as caught:
        runs.check_parameters(Kinds, {name: value}, "train")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_refused_with_the_nearest_and_the_known():
    with pytest.raises(CrashchatError, match="cuont='2' unknown parameter; did you mean count. known: word, count, rate"):
        runs.check_parameters(Kinds, {"cuont": "2"}, "train")
    with pytest.raises(CrashchatError, match="zzz='2' unknown parameter; known: word"):
        runs.check_parameters(Kinds, {"zzz": "2"}, "train")


def test_run_folders_do_not_collide_and_say_what_ran(tmp_path):
    made = [runs.new_run_dir("train-heterogeneous_multitask", "smoke", tmp_path) for _ in range(5)]
    assert len(set(made)) == 5 and all(path.is_dir() for path in made)
    assert all(path.name.startswith("train-heterogeneous_multitask-smoke-20") for path in made)


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(CrashchatError, match="runs/toy-smoke-.* cannot be made"):
        runs.new_run_dir("toy", "smoke", tmp_path / "runs")


def test_a_second_process_is_refused_and_a_killed_writer_frees_the_folder(tmp_path):
    hold = "import sys, time; from crashchat.runs import only_writer\nwith only_writer(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CrashchatError, match=f"being written by process {holder.pid}"), runs.only_writer(tmp_path, wait_s=0.2):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with runs.only_writer(tmp_path, wait_s=0.2):
        assert (tmp_path / "writer.lock").read_text() == f"{os.getpid()}\n"


def test_an_equal_unfinished_run_is_continued_and_no_other(toy, tmp_path):
    first = runs.open_run(toy, *toy.resolve({"rows": 3}))
    assert runs.open_run(toy, *toy.resolve({"rows": 3})) == first
    assert len(read_json(first / "provenance.json")["continued"]) == 1
    other = runs.open_run(toy, *toy.resolve({"rows": 4}))
    assert other != first
    write_json(first / "finished.json", {})
    assert runs.open_run(toy, *toy.resolve({"rows": 3})) not in (first, other)
    assert [run.finished for run in runs.list_runs("runs")].count(True) == 1


def test_the_newest_of_two_equal_unfinished_runs_is_continued(toy):
    older = runs.open_run(toy, *toy.resolve({}), run_dir="runs/a")
    newer = runs.open_run(toy, *toy.resolve({}), run_dir="runs/b")
    write_json(older / "provenance.json", {**read_json(older / "provenance.json"), "time_utc": "2020-01-01T00:00:00+00:00"})
    assert runs.open_run(toy, *toy.resolve({})) == newer


def test_config_json_marks_where_each_value_is_from(toy):
    values = read_json(runs.open_run(toy, *toy.resolve({"rows": 3})) / "config.json")["values"]
    assert values["rows"] == {"value": 3, "from": "override"}
    assert values["pause_s"] == {"value": 0.0, "from": "default"}


def test_a_folder_with_another_run_is_refused(toy):
    runs.open_run(toy, *toy.resolve({"rows": 3}), run_dir="runs/mine")
    with pytest.raises(CrashchatError, match="runs/mine: holds a run with other parameters"):
        runs.open_run(toy, *toy.resolve({"rows": 4}), run_dir="runs/mine")


def test_folders_that_are_no_runs_are_passed_over(toy, tmp_path):
    for name, text in {"a": "{", "b": "[]", "c": '{"app": "toy"}', "d": '{"app": "toy", "values": 3}'}.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text(text)
    assert runs.list_runs(tmp_path / "runs") == []
    assert runs.list_runs(tmp_path / "none") == []


def test_a_fingerprint_follows_annotations_and_weights(tmp_path):
    assert runs.folder_fingerprint(tmp_path) is None
    assert runs.folder_fingerprint("hub/name") is None and runs.folder_fingerprint(None) is None
    seen = []
    for path, text in [("annotations/x_test.json", "[]"), ("annotations/x_test.json", "[1]"), ("model.safetensors", "a"),
                       ("model.safetensors", "b"), ("videos/a.mp4", "not part of it")]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
        seen.append(runs.folder_fingerprint(tmp_path))
    assert None not in seen and len(set(seen)) == 4 and seen[3] == seen[4]


def test_a_run_on_other_inputs_is_not_continued(tmp_path, monkeypatch, toy):
    monkeypatch.setattr(runs, "INPUTS", ("fault",))  # the toy's only text field that can name a folder
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a_test.json").write_text("[]")
    first = runs.open_run(toy, *toy.resolve({"fault": "data"}))
    assert runs.open_run(toy, *toy.resolve({"fault": "data"})) == first
    (tmp_path / "data" / "a_test.json").write_text("[1]")
    assert runs.open_run(toy, *toy.resolve({"fault": "data"})) != first


def test_a_value_given_that_equals_the_default_beats_the_profile(toy):
    folder = runs.launch(toy, {"profile": "slow", "rows": "2"})
    assert [row["row"] for row in read_jsonl(folder / "metrics.jsonl")[1:]] == [0, 1]
    assert read_json(folder / "config.json")["values"]["pause_s"] == {"value": 0.01, "from": "profile"}


def test_by_hand_the_unchanged_values_are_the_profiles(toy):
    cell = {"profile": "slow", "rows": 2, "pause_s": 0.5, "fault": None, "run_dir": None}
    config, origins = runs.notebook_config(toy, cell)
    assert (config.rows, config.pause_s) == (5, 0.5)
    assert origins == {"profile": "override", "rows": "profile", "pause_s": "override", "fault": "default"}
    table = runs.config_table(config, origins)
    assert table.loc["rows"].tolist() == ["5", "profile"]


@pytest.mark.parametrize("tags", [[], ["parameters", "parameters"]])
def test_a_notebook_needs_exactly_one_parameters_cell(tmp_path, tags):
    cells = [nbformat.v4.new_code_cell("a = 1", metadata={"tags": [tag]}) for tag in tags] + [nbformat.v4.new_code_cell("")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    with pytest.raises(CrashchatError, match=f"a.ipynb: must have exactly one cell tagged parameters, has {len(tags)}"):
        runs.check_notebook(tmp_path / "a.ipynb")


def test_launch_runs_the_notebook_and_shows_what_it_writes(toy, capfd):
    folder = runs.launch(toy, {"rows": "3"})
    assert [row["row"] for row in read_jsonl(folder / "metrics.jsonl")[1:]] == [0, 1, 2]
    shown = capfd.readouterr()
    assert "all rows" in shown.out and "row 2" in shown.err
    assert re.search(r"toy bar: 100%.*2/2", shown.err), "a widget instead of a text bar"
    for noise in ("encryption", "unknown parameter", "Unable to parse"):
        assert noise not in shown.err
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "finished.json", "metrics.jsonl", "provenance.json", "toy.ipynb", "writer.lock"]
    executed = nbformat.read(folder / "toy.ipynb", 4)
    assert ["injected-parameters"] in [cell.metadata.get("tags") for cell in executed.cells]
    assert "widgets" not in executed.metadata


def test_a_finished_equal_run_is_reused_only_on_request(toy):
    first = runs.launch(toy, {}, reuse=True)
    assert runs.launch(toy, {}, reuse=True) == first
    assert runs.launch(toy, {}) != first
    assert runs.launch(toy, {"rows": 1}, reuse=True) != first


def test_nothing_starts_on_a_wrong_parameter(toy, tmp_path):
    for wrong in ({"row": "3"}, {"rows": "three"}):
        with pytest.raises(CrashchatError, match="^toy: row"):
            runs.launch(toy, wrong)
    assert not (tmp_path / "runs").exists()


def test_the_users_fault_in_the_notebook_comes_back_as_one_line(toy):
    with pytest.raises(CrashchatError) as caught:
        runs.launch(toy, {"fault": "user"})
    assert str(caught.value) == "data/demo: split='train' holds no clips"
    assert not runs.list_runs("runs")[0].finished


def test_a_defect_keeps_its_traceback(toy):
    with pytest.raises(Exception, match="ZeroDivisionError") as caught:
        runs.launch(toy, {"fault": "defect"})
    assert not isinstance(caught.value, CrashchatError)


def test_a_dead_kernel_is_said_in_one_line(toy):
    with pytest.raises(CrashchatError, match="toy.ipynb: its process died"):
        runs.launch(toy, {"fault": "death"})


def test_a_disk_that_fills_under_the_executed_notebook_is_one_line(toy, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papermill.execute_notebook", full)
    with pytest.raises(CrashchatError, match=r"toy-smoke-[\d-]+/toy\.ipynb: cannot be written: No space left on device"):
        runs.launch(toy, {})


def test_a_finished_run_is_not_written_again(toy, tmp_path):
    config, origins = toy.resolve({})
    folder = runs.open_run(toy, config, origins)
    with runs.recorded_run(toy, config, origins, str(folder)):
        pass
    with pytest.raises(CrashchatError, match="has finished"), runs.recorded_run(toy, config, origins, str(folder)):
        pass


def test_after_a_kill_the_kernel_ends_and_the_same_command_continues(toy, toy_folder):
    command = "from toyapp import toy; from crashchat.runs import launch; launch(toy(), {'rows': 60, 'pause_s': 0.1})"
    killed = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (log := next(iter(toy_folder.glob("runs/*/metrics.jsonl")), None)) or len(read_jsonl(log)) < 3:
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with runs.only_writer(log.parent):  # the orphaned kernel lets go
        rows = len(read_jsonl(log))
        time.sleep(0.5)
        assert len(read_jsonl(log)) == rows < 60
    assert runs.launch(toy, {"rows": 60, "pause_s": 0.1}) == Path("runs", log.parent.name)
    starts = [row["started"] for row in read_jsonl(log) if "started" in row]
    assert len(set(starts)) == 2 and read_jsonl(log)[-1] == {"row": 59}
    assert [run.finished for run in runs.list_runs("runs")] == [True]


def test_a_notebook_opened_by_hand_moves_to_the_projects_root(tmp_path, monkeypatch):
    (tmp_path / "nbs" / "apps").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "nbs" / "apps")
    assert runs.enter_project() == tmp_path
    assert runs.enter_project() == tmp_path


def test_apps_are_found_beside_the_package_and_an_unknown_one_is_named():
    assert (runs.project_root() / "nbs" / "apps").is_dir()
    with pytest.raises(CrashchatError, match="app='audit' unknown app; known: train, evaluate, compare"):
        runs.app_named("audit")


def test_without_a_checkout_the_message_says_where_it_was_sought(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs.crashchat, "__file__", str(tmp_path / "site-packages" / "crashchat" / "__init__.py"))
    with pytest.raises(CrashchatError, match="nbs/apps: not found beside the package or upward from"):
        runs.project_root()
