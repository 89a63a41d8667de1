"""One torch thread: set before anything imports torch, and inherited by the processes that tests start."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forked workers would warn on every test
