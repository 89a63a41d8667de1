"The rules of the house that a machine can check: layers, light imports, tidy notebooks, export and clean without a diff."

import ast
import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crashchat import runs

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
APPS = sorted((ROOT / "nbs" / "apps").glob("*.ipynb"))
NOTEBOOKS = [*LIBRARY, *(ROOT / "nbs" / f"{name}.ipynb" for name in ("index", "performance", "study", "coming_from_crashchat")), *APPS]
DECADES = {path.stem[3:]: int(path.stem[:2]) // 10 for path in LIBRARY}
HEAVY = "torch transformers peft pandas altair av decord papermill IPython numpy matplotlib".split()
LAUNCHED = ["train", "evaluate", "compare", "study"]  # the apps that papermill runs
MACHINE_PATH = re.compile(r"/(work|root|Users)/|/(home|tmp)/\w|[A-Z]:\\\\?Users")


def named(paths):
    "Parameters for pytest with readable ids."
    return [pytest.param(path, id=path.stem) for path in paths]


def cells_of(path: Path) -> list[dict]:
    "The cells of a notebook."
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def imported(source: str) -> set[str]:
    "Names of the project's modules that a source imports anywhere, functions and type checking included."
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("crashchat.")}
        elif isinstance(node, ast.ImportFrom):
            # nbdev exports `from crashchat.core import Span` as `from .core import Span`
            module = ".".join(part for part in ("crashchat" if node.level else "", node.module) if part)
            if module == "crashchat":
                found |= {alias.name for alias in node.names}
            elif module.startswith("crashchat."):
                found.add(module.split(".")[1])
    return found


def above(name: str, source: str, decades: dict[str, int]) -> list[str]:
    "What a module imports that does not stand in its own decade or a lower one."
    return sorted(other for other in imported(source) if decades.get(other, 99) > decades[name])


def test_the_layer_check_sees_a_breach():
    decades = {"core": 0, "train": 1, "cli": 4}
    assert above("cli", "def f():\n    from crashchat.train import train\nimport crashchat.core", decades) == []
    assert above("core", "def f():\n    from crashchat.train import train", decades) == ["train"]
    assert above("core", "from crashchat import cli, train", decades) == ["cli", "train"]
    assert above("core", "from .train import train\nfrom . import cli", decades) == ["cli", "train"]
    assert above("train", "from .core import Span\nfrom crashchatter import x", decades) == []


@pytest.mark.parametrize("name", sorted(DECADES))
def test_a_module_imports_from_its_own_decade_or_a_lower_one(name):
    assert above(name, (ROOT / "crashchat" / f"{name}.py").read_text(encoding="utf-8"), DECADES) == []


def test_each_module_has_its_notebook_and_each_notebook_its_module():
    modules = {path.stem for path in (ROOT / "crashchat").glob("*.py")} - {"__init__", "_modidx"}
    assert modules == set(DECADES)
    numbers = [path.stem[:2] for path in LIBRARY]
    assert len(numbers) == len(set(numbers))


def test_each_module_is_imported_by_a_test():
    seen = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        seen |= imported(path.read_text(encoding="utf-8"))
    assert set(DECADES) - seen == set()


def loaded_by(code: str) -> set[str]:
    "The heavy packages that a fresh interpreter has loaded after running `code`."
    script = f"import sys\n{code}\nprint(); print(*(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ["crashchat", "crashchat.core", "crashchat.tasks", "crashchat.cli"])
def test_import_is_light(module):
    assert loaded_by(f"import {module}") == set()


def test_runs_and_video_do_not_import_torch():
    assert "torch" not in loaded_by("import crashchat.runs, crashchat.video")


def test_help_is_light():
    assert loaded_by("import crashchat.cli\ntry: crashchat.cli.app(['--help'])\nexcept SystemExit: pass") == set()


def test_the_import_check_sees_a_heavy_import():
    assert loaded_by("import numpy") == {"numpy"}


@pytest.mark.parametrize("path", named(NOTEBOOKS))
def test_notebook_is_tidy(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert set(notebook["metadata"]) == {"kernelspec"}, "saved widget state or an editor's settings"
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len(text.encode()) <= 150_000
    assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text)
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags"}
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            for kind, content in output.get("data", {}).items():
                if kind.startswith("image/"):
                    size = len(content) if kind == "image/svg+xml" else len(base64.b64decode("".join(content)))
                    assert size <= 50_000, f"{kind} of {size} bytes"


@pytest.mark.parametrize("path", named(LIBRARY))
def test_library_notebook_opens_with_name_title_and_promise(path):
    cells = cells_of(path)
    assert "".join(cells[0]["source"]).strip() == f"#| default_exp {path.stem[3:]}"
    title, promise = "".join(cells[1]["source"]).split("\n\n")[:2]
    assert cells[1]["cell_type"] == "markdown" and title.startswith("# ") and promise.startswith("> ")


@pytest.mark.parametrize("path", named(APPS))
def test_app_is_committed_without_outputs_and_defines_next_to_nothing(path):
    for cell in cells_of(path):
        assert not cell.get("outputs") and cell.get("execution_count") is None
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("%"):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    assert node.end_lineno - node.lineno < 5, f"{node.name} belongs in a library notebook"


@pytest.mark.parametrize("name", LAUNCHED)
def test_launched_app_has_one_parameters_cell(name):
    runs.check_notebook(ROOT / "nbs" / "apps" / f"{name}.ipynb")


def test_apps_are_kept_from_nbdev_test():
    assert (ROOT / "nbs" / "apps" / ".notest").is_file()


def python_files() -> list[Path]:
    "Sources written or generated here."
    return [path for folder in ("crashchat", "tests", ".ci") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("path", named([*python_files(), ROOT / "README.md", ROOT / "Makefile", ROOT / "constraints.txt"]))
def test_no_path_of_a_machine(path):
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if MACHINE_PATH.search(line)] == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    "A copy of what nbdev reads and writes, so that the working tree is left alone."
    folder = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("nbs", "crashchat"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("settings.ini", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    "Every file below nbs and crashchat."
    ignored = {"__pycache__", ".ipynb_checkpoints"}
    files = [path for name in ("nbs", "crashchat") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if not ignored & set(path.parts)}


def run_nbdev(command: str, folder: Path):
    "One of nbdev's commands, in a folder."
    done = subprocess.run([Path(sys.executable).with_name(command)], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    "Names of files that differ, appeared or went."
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def test_export_makes_no_diff(copy):
    before = contents(copy)
    run_nbdev("nbdev_export", copy)
    assert changed(before, contents(copy)) == []


def test_clean_makes_no_diff_and_keeps_the_parameters_tag(copy):
    before = contents(copy)
    run_nbdev("nbdev_clean", copy)
    assert changed(before, contents(copy)) == []
    for name in LAUNCHED:
        runs.check_notebook(copy / "nbs" / "apps" / f"{name}.ipynb")


def test_the_diff_check_sees_a_change(copy):
    before = contents(copy)
    assert changed(before, {**before, "crashchat/core.py": b""}) == ["crashchat/core.py"]
