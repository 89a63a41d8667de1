"""One torch thread: set before anything imports torch, and inherited by the processes that tests start."""

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forked workers would warn on every test

CLIPS = {"train": 6, "val": 2, "test": 4}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    "A folder like a checkout after `make demo`, but tiny: the demo set's first clips, and a pocket model and its adapter with random weights."
    from pocket import saved_pocket

    from crashchat.model import AdapterCard, base_key, load_model, new_adapter, save_adapter
    from crashchat.simulate import make_set
    from crashchat.tasks import TASKS

    root = tmp_path_factory.mktemp("workplace")
    make_set(root / "data" / "demo", CLIPS)
    base = load_model(saved_pocket(root / "ckpt" / "pocket"), device="cpu").model
    card = AdapterCard("own", "heterogeneous_multitask", "pocket", base_key(base), "crashchat", {name: task.question for name, task in TASKS.items()})
    save_adapter(root / "ckpt" / "pocket" / "adapter", new_adapter(base, 4, 4, 0.0), card)
    return root
