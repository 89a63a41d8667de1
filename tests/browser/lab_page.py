"""A real JupyterLab that serves a temporary folder, and what people do with it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
VIDEO = ".cc-player video"
START_S = 180  # a busy machine takes long to start Lab, a page or a kernel
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
# cells that are run before the kernel answers are forgotten
KERNEL_UP = """async () => {
  const context = jupyterapp.shell.currentWidget.sessionContext;
  await context.ready;
  await context.session.kernel.info;
}"""


def missing(what: str):
    "A browser test without its browser is skipped on somebody's machine and fails in CI."
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI must run the browser tests")
    pytest.skip(f"{what} is missing")


class Lab:
    "A running JupyterLab."

    def __init__(self, url: str, root: Path, settings: Path):
        self.url, self.root, self.settings = url, root, settings

    def set(self, plugin: str, **values: object):
        "Change a setting, e.g. the theme, for pages opened from now on."
        path = self.settings / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def write(self, name: str, *cells: str):
        "Make a notebook of code cells."
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}})
        notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        nbformat.write(notebook, self.root / name)

    def open(self, page, notebook: str):
        "Open a notebook, fold the file list away and run all cells."
        page.goto(f"{self.url}/lab/tree/{notebook}?reset")
        page.locator(".jp-NotebookPanel .jp-Notebook").wait_for(timeout=1000 * START_S)
        page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=1000 * START_S)
        page.evaluate(KERNEL_UP)
        page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
        page.evaluate("() => void jupyterapp.commands.execute('notebook:run-all-cells')")


@contextmanager
def running_lab(home: Path) -> Iterator[Lab]:
    "JupyterLab on `home`/root, with nothing of the user's own configuration."
    root = home / "root"
    root.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", root, home / "settings")
    for plugin, values in SETTINGS.items():
        lab.set(plugin, **values)
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "XDG_CACHE_HOME": "cache",
               "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython"}
    environment = {**os.environ, "LOGNAME": "ada", **{name: str(home / folder) for name, folder in folders.items()}}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--allow-root", "--ip=127.0.0.1",
               f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={root}"]
    with open(home / "lab.log", "wb") as log:
        server = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
    try:
        wait_until_up(lab.url, server, home / "lab.log")
        yield lab
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_up(url: str, server: subprocess.Popen, log: Path):
    "Wait for the server's first answer; fail with its log if it dies or takes too long."
    began = time.monotonic()
    while server.poll() is None and time.monotonic() - began < START_S:
        try:
            urllib.request.urlopen(f"{url}/api/status", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def video(page, what: str):
    "A property of the video element."
    return page.locator(VIDEO).evaluate(f"video => video.{what}")


def wait_for_clip(page):
    "Wait until a picture can be shown."
    page.wait_for_function(f"document.querySelector('{VIDEO}')?.readyState >= 2", timeout=1000 * START_S)


def wait_for_time(page, seconds: float, tolerance: float = 0.01):
    "Wait until the video stands at a time."
    page.wait_for_function(f"t => Math.abs(document.querySelector('{VIDEO}').currentTime - t) < {tolerance}", arg=seconds)


def wait_until_past(page, seconds: float):
    "Wait until the video has played past a time."
    page.wait_for_function(f"t => document.querySelector('{VIDEO}').currentTime > t", arg=seconds)
