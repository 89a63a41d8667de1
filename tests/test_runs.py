"Parameters are refused before anything starts, a run has one writer, and the same command continues what was killed."

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nbformat
import psutil
import pytest
from typer.testing import CliRunner

from crashchat import cli, runs
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


def test_a_run_and_its_kernel_talk_through_a_folder_nobody_else_may_enter(tmp_path, monkeypatch, capfd):
    (tmp_path / "own").mkdir()
    look = "from ipykernel.kernelapp import IPKernelApp\nfrom pathlib import Path\napp = IPKernelApp.instance()\n" \
        "print(app.transport, oct(Path(app.ip).parent.stat().st_mode), Path(app.ip).parents[1].name)"
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(look)], metadata={"kernelspec": kernel}), tmp_path / "a.ipynb")
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.tempdir", str(tmp_path / "own"))
        runs.execute(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {})
    assert "ipc 0o40700 own" in capfd.readouterr().out and not any((tmp_path / "own").iterdir())
    (tmp_path / "own").rmdir()
    with monkeypatch.context() as patched, pytest.raises(CrashchatError, match="own/crashchat-.*: cannot be written: No such file"):
        patched.setattr("tempfile.tempdir", str(tmp_path / "own"))
        runs.execute(tmp_path / "a.ipynb", tmp_path / "c.ipynb", {})


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


# --- many runs of one notebook


def test_many_runs_end_in_the_order_of_their_sets_and_a_failing_one_stops_no_other(toy, monkeypatch, capfd):
    begun, at_once, begin = [], [], runs.begin_alone

    def counting(*given):
        at_once.append(1 + sum(process.poll() is None for process in begun))
        begun.append(begin(*given))
        return begun[-1]

    monkeypatch.setattr(runs, "begin_alone", counting)
    sets = [{"rows": "3"}, {"fault": "user"}, {"fault": "death"}, {"fault": "defect"}, {"rows": 1}]
    ended = runs.launch_all(toy, sets, workers=2)
    assert max(at_once) == 2
    assert [run.parameters for run in ended] == sets and len({run.run_dir for run in ended}) == 5
    assert [run.problem for run in ended[::4]] == [None, None]
    assert [run.finished for run in runs.list_runs("runs")].count(True) == 2
    assert ended[1].problem == "data/demo: split='train' holds no clips"
    assert re.search(r"toy\.ipynb: its process died, perhaps for lack of memory", ended[2].problem)
    assert re.search(r"toy\.ipynb: ZeroDivisionError: division by zero$", ended[3].problem)
    assert "Traceback" in (ended[3].run_dir / "output.log").read_text()
    assert "row 2" in (log := (ended[0].run_dir / "output.log").read_text()) and "all rows" in log
    assert [row["row"] for row in read_jsonl(ended[0].run_dir / "metrics.jsonl")[1:]] == [0, 1, 2]
    shown = capfd.readouterr().err
    assert "toy: 5 of 5 are to run, 2 at once" in shown and f"{ended[1].run_dir} data/demo: split='train' holds no clips" in shown
    assert "row 2" not in shown


def test_what_has_finished_is_not_run_again_and_what_failed_is_continued(toy, capfd):
    first = runs.launch_all(toy, [{"rows": 1}, {"fault": "user"}])
    again = runs.launch_all(toy, [{"fault": "user"}, {"rows": 1}], workers=1)
    assert [run.run_dir for run in again] == [first[1].run_dir, first[0].run_dir]
    assert [run.problem is None for run in again] == [False, True]
    assert "toy: 1 of 2 are to run, 1 at once" in capfd.readouterr().err
    assert [len(read_jsonl(run.run_dir / "metrics.jsonl")) for run in again] == [2, 2]


@pytest.mark.parametrize("sets, message", [
    ([{"rows": 1}, {"row": 2}], "^toy set 2, parameters: row=2 unknown parameter; did you mean rows"),
    ([{"rows": 1}, {}, {"rows": "many"}], "^toy set 3, parameters: rows='many' must be int"),
    ([{"rows": 1}, {}, {"rows": "1"}], "^toy set 3: comes to the same values as set 1$"),
])
def test_one_wrong_set_among_many_starts_nothing(toy, tmp_path, sets, message):
    with pytest.raises(CrashchatError, match=message):
        runs.launch_all(toy, sets)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("how, message", [
    ({"workers": 0}, "fan-out: workers=0 must be at least 1"), ({"engine": "dask"}, "fan-out: engine='dask' must be local or ray"),
    ({"address": "10.0.0.1:6379"}, "fan-out: address='10.0.0.1:6379' is that of a Ray cluster: it needs engine=ray"),
])
def test_a_way_to_run_that_makes_no_sense_is_refused(toy, tmp_path, how, message):
    with pytest.raises(CrashchatError, match=re.escape(message)):
        runs.launch_all(toy, [{}], **how)
    assert not (tmp_path / "runs").exists()


def test_without_ray_it_is_said_before_anything_starts(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CrashchatError, match=r"pip install .*\[ray\]"):
        runs.launch_all(toy, [{}], engine="ray")
    assert not (tmp_path / "runs").exists()


def test_a_run_that_somebody_writes_is_reported_and_the_others_run(toy, monkeypatch):
    taken = runs.open_run(toy, *toy.resolve({"rows": 3}))
    monkeypatch.setattr(runs.only_writer.__wrapped__, "__defaults__", (0.2,))
    hold = "import sys, time; from crashchat.runs import only_writer\nwith only_writer(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(taken)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        ended = runs.launch_all(toy, [{"rows": 3}, {"rows": 1}])
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert ended[0].run_dir is None and f"is being written by process {holder.pid}" in ended[0].problem
    assert ended[1].problem is None


LONG = [{"rows": 60, "pause_s": 0.1}, {"rows": 61, "pause_s": 0.1}, {"rows": 1}]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_or_killed_a_fan_out_takes_its_runs_along_and_continues(toy, toy_folder, how):
    command = f"from toyapp import toy; from crashchat.runs import launch_all; launch_all(toy(), {LONG}, workers=2)"
    stopped = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(logs := [log for log in toy_folder.glob("runs/*/metrics.jsonl") if len(read_jsonl(log)) > 3]) < 2:
        assert time.monotonic() < deadline and stopped.poll() is None
        time.sleep(0.05)
    stopped.send_signal(how)
    stopped.wait()
    for log in logs:
        with runs.only_writer(log.parent):  # its kernel lets go
            rows = len(read_jsonl(log))
            time.sleep(0.3)
            assert len(read_jsonl(log)) == rows < 60
    assert len(list(toy_folder.glob("runs/*/metrics.jsonl"))) == 2, "the third has not begun"
    assert [run.problem for run in runs.launch_all(toy, [LONG[0], LONG[2]])] == [None, None]
    assert {len({row["started"] for row in read_jsonl(log) if "started" in row}) for log in logs} == {1, 2}


def test_a_run_whose_process_is_killed_says_so(toy, tmp_path):
    folder = str(runs.open_run(toy, *toy.resolve({"rows": 100, "pause_s": 0.1})).resolve())
    process = runs.begin_alone(str(toy.notebook), folder, {})
    process.kill()
    assert runs.why_it_failed(process, folder) == "its process died of SIGKILL; the same command continues"


def test_cores_and_gpus_are_divided_among_the_runs_of_one_machine(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runs, "usable_cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,0")
    assert runs.share_of(0, 1) == {}
    assert [runs.share_of(slot, 2) for slot in (0, 1)] == [
        {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "3,0"}, {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "1"}]
    assert [runs.share_of(slot, 16) for slot in (0, 5)] == [
        {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "3"}, {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert runs.share_of(0, 2) == {"OMP_NUM_THREADS": "4"}


@pytest.mark.parametrize("text, message", [
    ('{"a": 1}\n{"a": \n', "sets.jsonl line 2: is not JSON"), ('{"a": 1}\n\n3\n', "sets.jsonl line 3: line=3 must be an object of parameters"),
    ("\n \n", "sets.jsonl: holds no set of parameters"), (b"\xff", "sets.jsonl: cannot be read"), (None, "sets.jsonl: cannot be read"),
])
def test_a_file_of_sets_that_cannot_be_taken_is_named_with_its_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "sets.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CrashchatError, match=message):
        runs.read_sets(tmp_path / "sets.jsonl")


def test_a_last_line_without_an_end_is_a_set_too(tmp_path):
    (tmp_path / "sets.jsonl").write_text('{"seed": 1}\r\n\n{"seed": 2, "adapter": null}')
    assert runs.read_sets(tmp_path / "sets.jsonl") == [{"seed": 1}, {"seed": 2, "adapter": None}]


def test_what_had_ended_when_its_worker_was_lost_is_not_run_again(toy, tmp_path, monkeypatch):
    folder = runs.open_run(toy, *toy.resolve({"fault": "user"})).resolve()
    write_json(folder / "finished.json", {})
    assert runs.run_as_task(str(toy.notebook), str(folder), str(tmp_path)) is None and not (folder / "output.log").exists()


def test_a_run_is_interrupted_even_where_its_starter_ignores_it(toy):
    folder = runs.open_run(toy, *toy.resolve({"rows": 600, "pause_s": 0.1})).resolve()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = runs.begin_alone(str(toy.notebook), str(folder), {})
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.stdin.close()
    assert process.wait(timeout=60) == 1
    assert (folder / "output.log").read_text().splitlines()[-1] == "interrupted; the same command continues"


@pytest.mark.filterwarnings("ignore")
def test_on_ray_a_lost_worker_is_survived(toy, toy_folder):
    pytest.importorskip("ray")
    killed = []

    def kill_one_worker():
        "The worker above the kernel of the long run, once that has begun."
        while not (logs := [log for log in toy_folder.glob("runs/*/metrics.jsonl") if len(read_jsonl(log)) > 3]):
            time.sleep(0.05)
        worker = psutil.Process(read_jsonl(logs[0])[0]["started"]).parent().parent()
        killed.append(" ".join(worker.cmdline()))
        worker.kill()

    killer = threading.Thread(target=kill_one_worker, daemon=True)
    killer.start()
    ended = runs.launch_all(toy, [{"rows": 200, "pause_s": 0.1}, {"fault": "user"}], workers=2, engine="ray")
    killer.join()
    assert "ray::" in killed[0]
    assert [run.problem for run in ended] == [None, "data/demo: split='train' holds no clips"]
    rows = read_jsonl(ended[0].run_dir / "metrics.jsonl")
    assert len({row["started"] for row in rows if "started" in row}) == 2 and rows[-1] == {"row": 199}


@pytest.mark.parametrize("problems, code", [([None, None], 0), ([None, "a: b"], 1), (["a: b", "c: d"], 2)])
def test_the_command_says_how_each_run_ended(tmp_path, monkeypatch, problems, code):
    (tmp_path / "sets.jsonl").write_text('{"seed": 1}\n{"seed": 2}\n')
    asked = []

    def launch_all(*given):
        asked.append(given)
        return [runs.Launched(given[1][index], Path("runs", str(index)), problem) for index, problem in enumerate(problems)]

    monkeypatch.setattr(runs, "launch_all", launch_all)
    words = ["fan-out", "train", str(tmp_path / "sets.jsonl"), "--workers", "3", "--engine", "ray", "--address", "here"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == code, result.output
    assert asked == [("train", [{"seed": 1}, {"seed": 2}], 3, "ray", "here")]
    assert [line.split()[0] for line in result.stdout.splitlines()[:2]] == ["runs/0", "runs/1"]
    assert all((problem or "finished") in line for problem, line in zip(problems, result.stdout.splitlines(), strict=False))
