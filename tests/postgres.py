"A PostgreSQL server of one's own, from Debian's `postgresql`, for the tests that need a real one."

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def programs() -> Path:
    "The folder with initdb and pg_ctl. Without them a test is skipped on somebody's machine and fails in CI."
    on_path = shutil.which("initdb")
    found = [Path(on_path)] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    if os.environ.get("CI") == "true":
        pytest.fail("PostgreSQL is missing, and CI must run its tests")
    pytest.skip("PostgreSQL is missing: apt-get install postgresql")


@contextmanager
def server() -> Iterator[str]:
    "A running server that listens on a socket in its own folder only; gives the URL of a database."
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: the path of a socket has at most 107 bytes
    owner = "postgres" if os.getuid() == 0 else None  # the server refuses to be started by root
    if owner:
        shutil.chown(folder, owner)

    def run(program: str, *words: str):
        subprocess.run([programs() / program, "-D", folder / "data", *words], user=owner, cwd=folder, check=True, timeout=120,
                       stdout=subprocess.DEVNULL, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})

    try:
        run("initdb", "--username", "ann", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        run("pg_ctl", "start", "--wait", "--log", "log", "--options", f"-F -c listen_addresses='' -k {folder}")
        try:
            yield f"postgresql://ann@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "--mode", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
