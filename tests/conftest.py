"""One torch thread: set before anything imports torch, and inherited by the processes that tests start."""

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forked workers would warn on every test

CLIPS = {"train": 6, "val": 2, "test": 4}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    "A folder like a checkout after `make demo`, but tiny: the demo set's first clips and a pocket model with random weights."
    from pocket import saved_pocket

    from crashchat.simulate import make_set

    root = tmp_path_factory.mktemp("workplace")
    make_set(root / "data" / "demo", CLIPS)
    saved_pocket(root / "ckpt" / "pocket")
    return root
