"""Training on six questions about a clip, with and without the work they share: `make bench`.

Four ways to the same gradients, from the clip's file to the optimiser's step: each question alone and from pixels, as the
reference trains; each alone with the vision cache; packed behind one clip; packed with the cache. Their rounds alternate, losses
and gradients are compared in the first. Then what else was tried, against the fourth. `nbs/performance.ipynb` shows the result
and counts the operations.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from peft import PeftModel
from transformers import (
    AutoTokenizer,
    Qwen2Config,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3VisionConfig,
)

from crashchat import packing
from crashchat.core import git_revision, provenance, write_json
from crashchat.estimate import Demand, encoder_flops, in_use, peak_since, training_flops
from crashchat.features import FeatureStore, clip_tensors, feature_store, fill
from crashchat.model import (
    PUBLISHED_VISION,
    Loaded,
    ModelCard,
    attention_for,
    load_model,
    new_adapter,
    recompute_layers,
    token_id,
)
from crashchat.packing import Row, block_table, embed, join, pack, token_losses
from crashchat.preprocess import clip_prefix, encode_question, read_clip
from crashchat.scenarios import Scenario, draw_scenario, scenario_truth
from crashchat.simulate import write_clip
from crashchat.tasks import ALL, OWN_QUESTIONS

HERE = Path(__file__).resolve().parent
POCKET = HERE.parents[1] / "ckpt" / "pocket"
MOST_DIFFERENCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2}  # relative, of loss and gradient, between the four ways
FRAMES_FROM_S = 10.0  # a clip at least this long gives 96 frames at 10 a second


@dataclass(frozen=True)
class Size:
    "A model and what it is trained on."

    name: str
    make: Callable[[str], Loaded]  # device -> model, tokenizer, card
    clips: int             # of one optimiser step, six questions each
    rank: int              # of the adapter
    seconds: float | None = None   # clips are made at least this long; None: as they are drawn
    checkpointing: bool = False    # activations are computed again, as in the published recipe


@dataclass(frozen=True)
class Way:
    "One way to train."

    key: str
    title: str
    packed: bool           # a clip's questions in one row; else a row each
    cached: bool           # the encoder's output from the cache; else from the clip's file
    rows: str = "clip"     # packed: a row a "clip", one for the whole "step", or a "padded" batch of them
    around: Callable[["Bench"], AbstractContextManager[Any]] = lambda bench: nullcontext()
    exact: bool = True     # must give the gradients of the first way
    memory: bool = True    # worth a process of its own that measures it


# --- sizes


def built(
    device: str,
    text: dict[str, Any],
    vision: dict[str, Any],
    card: ModelCard,
    dtype: torch.dtype,
) -> Loaded:
    "A model of some shape with random weights, made where it is used, with the pocket model's tokenizer."
    tokenizer = AutoTokenizer.from_pretrained(POCKET)
    special = {f"{name}_token_id": token_id(tokenizer, f"<|{name}_pad|>") for name in ("video", "image")}
    config = VideoLlama3Config(
        text_config=Qwen2Config(**text, max_position_embeddings=16384), vision_config=VideoLlama3VisionConfig(**vision),
        tie_word_embeddings=text["tie_word_embeddings"], **special,
    )
    torch.manual_seed(0)
    attention = attention_for(device)
    with torch.device(device):
        model = VideoLlama3ForConditionalGeneration._from_config(config, attn_implementation=attention, dtype=dtype)
    return Loaded(model.eval(), tokenizer, card)


ROPE = {"rope_type": "default", "rope_theta": 1e6}
BENCH_TEXT = {"vocab_size": 16384, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 9, "num_attention_heads": 8,
              "num_key_value_heads": 2, "tie_word_embeddings": True, "rope_parameters": ROPE}
BENCH_VISION = {"hidden_size": 320, "intermediate_size": 1280, "num_hidden_layers": 6, "num_attention_heads": 5, "patch_size": 14}
BENCH_CARD = ModelCard("bench", fps=10.0, max_frames=19, sampled_by="index", max_tokens=2072, compress=False)
TEXT_2B = {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
           "num_key_value_heads": 2, "tie_word_embeddings": True, "rope_parameters": ROPE}
TEXT_7B = {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "tie_word_embeddings": False, "rope_parameters": ROPE}
GPU_CARD = ModelCard("recipe", fps=10.0, max_frames=96, sampled_by="index", max_tokens=10400, compress=False)
CPU_SIZES = (
    Size("pocket", lambda device: load_model(POCKET, device=device), clips=4, rank=64),
    Size("bench", lambda device: built(device, BENCH_TEXT, BENCH_VISION, BENCH_CARD, torch.float32), clips=1, rank=16),
)
GPU_SIZES = tuple(
    Size(name, partial(built, text=text, vision=dict(PUBLISHED_VISION), card=GPU_CARD, dtype=torch.bfloat16), clips=4, rank=64,
         seconds=FRAMES_FROM_S, checkpointing=True)
    for name, text in (("2B", TEXT_2B), ("7B", TEXT_7B))
)


# --- ways


def seen_by_each(
    clips: Sequence[tuple[int, tuple[int, ...]]],  # as in `Row`
) -> torch.Tensor:  # bool [L,L]
    "Who may look at whom in a row, token by token."
    clip, part, _, _ = block_table(clips)
    return ((clip[:, None] == clip) & ((part == 0) | (part[:, None] == part))).tril()


def dense(
    bench: "Bench",
) -> AbstractContextManager[Any]:
    "One mask of the row's length squared, as packing usually does it."
    return patch.object(packing, "who_sees_whom", lambda clips, device: seen_by_each(clips)[None, None].to(device))


@contextmanager
def recomputed(
    bench: "Bench",
    every: int = 1,  # layer; 1 = all
) -> Iterator[None]:
    "Activations of some layers are computed again in the backward pass."
    recompute_layers(bench.tuned, every)
    bench.tuned.train()
    yield
    bench.tuned.eval()
    recompute_layers(bench.tuned, 0)


@contextmanager
def compiled(
    bench: "Bench",
) -> Iterator[None]:
    "The language model's layers through torch.compile; the first round pays for it."
    layers: Any = bench.base.model.model.language_model.layers
    for layer in layers:
        if not hasattr(layer, "compiled_before"):
            layer.compile(dynamic=True)
            layer.compiled_before = layer._compiled_call_impl
        layer._compiled_call_impl = layer.compiled_before
    yield
    for layer in layers:
        layer._compiled_call_impl = None


def in_bfloat16(
    bench: "Bench",
) -> AbstractContextManager[Any]:
    "The products in bfloat16."
    return torch.autocast(bench.device, torch.bfloat16)


SIDES = (
    Way("a", "each question alone, from pixels", packed=False, cached=False),
    Way("b", "each question alone, vision cache", packed=False, cached=True),
    Way("c", "packed, from pixels", packed=True, cached=False),
    Way("d", "packed, vision cache", packed=True, cached=True),
)
OURS = SIDES[-1]
TRIED = {
    "pocket": (
        replace(OURS, key="row", title="all clips of a step in one row", rows="step"),
        replace(OURS, key="padded", title="all clips of a step, padded, as a batch", rows="padded"),
        replace(OURS, key="dense", title="one dense mask over the row", around=dense),
        replace(OURS, key="all", title="every layer recomputed", around=recomputed),
    ),
    "bench": (
        replace(OURS, key="some", title="two layers of nine recomputed", around=partial(recomputed, every=5)),
        replace(OURS, key="dense", title="one dense mask over the row", around=dense, memory=False),
        replace(OURS, key="bf16", title="bfloat16 autocast", around=in_bfloat16, exact=False, memory=False),
        replace(OURS, key="compile", title="torch.compile", around=compiled, memory=False),
    ),
}


# --- one step


@dataclass(frozen=True)
class Clip:
    "A clip's file and its six answers."

    video: Path
    truth: dict[str, str]


def crash_clips(
    folder: Path,
    size: Size,
) -> list[Clip]:
    "The first simulated clips in which all six questions have an answer."
    found: list[Clip] = []
    seed = 0
    while len(found) < size.clips:
        scenario: Scenario = draw_scenario(seed)
        truth = scenario_truth(scenario)
        if len(truth) == len(ALL):
            longer = scenario if size.seconds is None else replace(scenario, duration_s=max(size.seconds, scenario.duration_s))
            found.append(Clip(folder / f"{size.name}_{seed}.mp4", truth))
            if not found[-1].video.exists():
                write_clip(longer, found[-1].video)
        seed += 1
    return found


def questions_about(
    clip: Clip,
    tasks: Sequence[str],
    base: Loaded,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    "Ids and labels of the questions."
    return [encode_question(OWN_QUESTIONS[task], clip.truth[task], base.tokenizer) for task in tasks]


@dataclass(frozen=True)
class Bench:
    "Everything that is there before the clock starts."

    size: Size
    device: str
    base: Loaded
    tuned: PeftModel
    start: list[torch.Tensor]   # what is trained, as it was
    clips: list[Clip]
    learnt: int                 # tokens of the step's answers
    store: FeatureStore
    fill_s: float               # the cache was filled in
    bytes_a_clip: int           # in the cache
    tasks: tuple[str, ...] = ALL

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        "Adapter and projector."
        return {name: tensor for name, tensor in self.tuned.named_parameters() if tensor.requires_grad}


def prepared(
    size: Size,
    device: str,
    folder: Path,  # for clips and cache
) -> Bench:
    "Clips, model with an adapter that has learnt a little, filled cache."
    base = size.make(device)
    clips = crash_clips(folder, size)
    store = feature_store(folder / "cache", base.model, base.card)
    began = time.perf_counter()
    filled = fill(store, base.model, base.card, [clip.video for clip in clips])
    fill_s = time.perf_counter() - began
    torch.manual_seed(0)
    tuned = new_adapter(base.model, size.rank, 16, 0.0).eval()
    for name, tensor in tuned.named_parameters():
        if "lora_B" in name:  # zero at first, which would leave lora_A without a gradient to compare
            torch.nn.init.normal_(tensor, std=0.01)
    start = [tensor.detach().clone() for tensor in tuned.parameters() if tensor.requires_grad]
    if size.checkpointing:
        recompute_layers(tuned, 1)
        tuned.train()
    learnt = sum(int((labels >= 0).sum()) for clip in clips for _, labels in questions_about(clip, ALL, base))
    return Bench(size, device, base, tuned, start, clips, learnt, store, fill_s, filled.folder_bytes // len(clips))


@dataclass
class Counted:
    "What a step had to do."

    questions: int = 0
    tokens: int = 0        # run through the language model
    operations: float = 0  # floating-point, without what is computed a second time


def look(
    bench: Bench,
    way: Way,
    clip: Clip,
    counted: Counted,
) -> dict[str, torch.Tensor]:
    "Features, counts and times of a clip."
    if way.cached:
        found = bench.store.find(clip.video)
        assert found is not None, "the cache was filled before"
        return found
    shown = read_clip(clip.video, bench.base.card)
    counted.operations += encoder_flops(bench.base.model.config, shown.grid)
    return clip_tensors(bench.base.model, shown)


def rows_of(
    bench: Bench,
    way: Way,
    counted: Counted,
) -> Iterator[list[Row]]:
    "The rows of each pass."
    tokenizer, video_id = bench.base.tokenizer, bench.base.model.config.video_token_id
    held = []
    for clip in bench.clips:
        asked = questions_about(clip, bench.tasks, bench.base)
        for group in [asked] if way.packed else [[question] for question in asked]:
            seen = look(bench, way, clip, counted)
            prefix = clip_prefix(seen["times_s"].tolist(), seen["counts"].tolist(), tokenizer, video_id)
            packed, features = pack(prefix, group), seen["features"]
            counted.questions += len(group)
            if way.rows == "clip":
                yield [join([packed], [features])]
            else:
                held.append((packed, features))
    if way.rows == "step":
        yield [join([packed for packed, _ in held], [features for _, features in held])]
    if way.rows == "padded":
        yield [join([packed], [features]) for packed, features in held]


def padded_losses(
    tuned: PeftModel,
    rows: Sequence[Row],  # one clip each
) -> torch.Tensor:        # float32 [n of all]
    "What `token_losses` gives, with the rows side by side and filled up to the longest."
    base: Any = tuned.get_base_model()
    sizes = [row.input_ids.shape[1] for row in rows]
    longest = max(sizes)
    ids, positions = (
        torch.cat([torch.nn.functional.pad(getattr(row, name), (0, longest - size)) for row, size in zip(rows, sizes, strict=True)])
        for name in ("input_ids", "position_ids")
    )
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)  # what is filled up sees itself
    for own, row, size in zip(mask, rows, sizes, strict=True):
        own[:size, :size] = seen_by_each(row.clips)
    hidden = base.model.language_model(
        inputs_embeds=embed(base, ids, torch.cat([row.features for row in rows])), position_ids=positions, use_cache=False,
        attention_mask={"full_attention": mask[:, None].to(ids.device)},
    ).last_hidden_state
    logits = base.lm_head(torch.cat([own[row.before] for own, row in zip(hidden, rows, strict=True)])).float()
    return torch.nn.functional.cross_entropy(logits, torch.cat([row.targets for row in rows]), reduction="none")


def row_operations(
    bench: Bench,
    row: Row,
) -> float:
    "What a row takes, forwards and backwards."
    return training_flops(Demand(bench.base.model.config, row.clips, len(row.features), len(row.before), bench.size.rank, dropout=0.0)).model


def one_step(
    bench: Bench,
    way: Way,
) -> tuple[float, Counted]:  # the step's mean loss over answer tokens
    "From the clips' files to the gradients and through the optimiser."
    counted, loss = Counted(), 0.0
    optimizer = torch.optim.AdamW(bench.trained.values(), lr=1e-5, weight_decay=0.0)
    for rows in rows_of(bench, way, counted):
        rows = [row.to(bench.device) for row in rows]
        losses = padded_losses(bench.tuned, rows) if way.rows == "padded" else token_losses(bench.tuned, rows[0])
        share = losses.sum() / bench.learnt
        share.backward()
        loss += share.item()
        counted.tokens += len(rows) * max(row.input_ids.shape[1] for row in rows)
        counted.operations += sum(row_operations(bench, row) for row in rows)
    optimizer.step()
    return loss, counted


def restart(
    bench: Bench,
):
    "Take back what a step did."
    with torch.no_grad():
        for tensor, first in zip(bench.trained.values(), bench.start, strict=True):
            tensor.copy_(first)
            tensor.grad = None


# --- measuring


PEAK_SIDES = {"cuda": 8192, "cpu": 2048}  # of the matrices multiplied to find out what a device can do


def peak_operations(
    device: str,
    dtype: torch.dtype,
) -> float:  # operations a second
    "What this device reaches with one large product, the best of five."
    side = PEAK_SIDES[device]
    one, two = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(5):
        finish(device)
        began = time.perf_counter()
        torch.mm(one, two)
        finish(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def finish(
    device: str,
):
    "Wait for a GPU; a CPU is never ahead."
    if device == "cuda":
        torch.cuda.synchronize()


def gradients(
    bench: Bench,
) -> dict[str, torch.Tensor]:
    "Of the last step."
    return {name: tensor.grad.clone() for name, tensor in bench.trained.items() if tensor.grad is not None}


def difference(
    ours: dict[str, torch.Tensor],
    theirs: dict[str, torch.Tensor],
) -> float:
    "The length of the difference of two gradients, over all that is trained, relative to the length of the second."
    apart, length = (sum(part.double().pow(2).sum() for part in parts) for parts in (
        (ours[name] - theirs[name] for name in theirs), theirs.values()))
    return float(torch.as_tensor(apart / length).sqrt())


@dataclass(frozen=True)
class Round:
    "A step's figures."

    seconds: float
    processor_s: float       # of all threads of this process: others on the machine do not count
    loss: float
    counted: Counted
    peak_bytes: int | None   # above what was in use before; None where the system does not tell


def one_round(
    bench: Bench,
    way: Way,
) -> Round:
    "A step from where the first one began."
    restart(bench)
    before = in_use(bench.device)
    halves = bench.base.model.dtype == torch.bfloat16  # then products are in it too, as in the recipe
    with torch.autocast(bench.device, torch.bfloat16, enabled=halves), way.around(bench):
        finish(bench.device)
        began, processor = time.perf_counter(), time.process_time()
        loss, counted = one_step(bench, way)
        finish(bench.device)
        seconds, processor_s = time.perf_counter() - began, time.process_time() - processor
    return Round(seconds, processor_s, loss, counted, peak_since(bench.device, before))


def own_peak_bytes(
    size: Size,
    way: Way,
    folder: Path,  # with clips and cache
) -> int | None:
    "Peak memory of a step above the loaded model, in a process that has done nothing else. Alone, the longest answer is enough."
    bench = prepared(size, "cpu", folder)
    return one_round(bench if way.packed else replace(bench, tasks=("prevention_reasoning",)), way).peak_bytes


def peak_elsewhere(
    size: Size,
    way: Way,
    folder: Path,
) -> int | None:
    "The same from here."
    words = [sys.executable, __file__, "--sizes", size.name, "--peak", way.key, "--folder", str(folder)]
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # freed memory goes back at once, so that what is needed is seen
    done = subprocess.run(words, env=at_once, capture_output=True, text=True, check=True)
    found = done.stdout.split()[-1]
    return None if found == "None" else int(found)


def measure(
    size: Size,
    device: str,
    rounds: int,   # timed, of each way in turn
    folder: Path,  # for clips and cache
    peaks: dict[str, float],  # type -> operations a second of this device
) -> dict[str, Any]:  # plain JSON values
    "All ways at one size. Ends the program if one does not give the loss and gradients of the first."
    bench = prepared(size, device, folder)
    ways = [*SIDES, *TRIED.get(size.name, ())]
    done: dict[str, list[Round]] = {way.key: [] for way in ways}
    apart, alone = {}, {}
    for way in ways if device == "cuda" else ():  # its kernels are compiled at their first use
        one_round(bench, way)
    for number in range(rounds):
        for way in ways:
            done[way.key].append(one_round(bench, way))
            print(f"{size.name}  round {number + 1}  {way.key:<10} {done[way.key][-1].seconds:8.2f} s", flush=True)
            if number == 0:
                alone = alone or gradients(bench)
                apart[way.key] = max(abs(done[way.key][0].loss / done["a"][0].loss - 1), difference(gradients(bench), alone))
                if way.exact and not apart[way.key] <= MOST_DIFFERENCE[bench.base.model.dtype]:
                    sys.exit(f"{size.name}: ({way.key}) {way.title} trains something else than (a): {apart[way.key]:.1e} apart")
    highest = {way.key: done[way.key][-1].peak_bytes if device == "cuda" else peak_elsewhere(size, way, folder) for way in ways if way.memory}
    kind = {way.key: str(bench.base.model.dtype if way.exact else torch.bfloat16).removeprefix("torch.") for way in ways}
    return {"size": size.name, **facts(bench),
            "ways": [row_of(way, done, apart[way.key], highest.get(way.key), peaks[kind[way.key]]) for way in ways]}


def facts(
    bench: Bench,
) -> dict[str, Any]:
    "What was trained on what."
    model: Any = bench.base.model
    found = bench.store.find(bench.clips[0].video)
    assert found is not None
    own = [tensor for name, tensor in model.named_parameters() if "lora_" not in name and "original_module" not in name]
    return {
        "parameters": sum(tensor.numel() for tensor in own), "dtype": str(model.dtype).removeprefix("torch."),
        "trained": sum(tensor.numel() for tensor in bench.trained.values()), "clips_a_step": len(bench.clips),
        "frames": len(found["counts"]), "visual_tokens": int(found["counts"].sum()),
        "question_tokens": [len(ids) for ids, _ in questions_about(bench.clips[0], ALL, bench.base)],
        "rank": bench.size.rank, "checkpointing": bench.size.checkpointing, "cache_fill_s": bench.fill_s,
        "cache_bytes_a_clip": bench.bytes_a_clip,
    }


def row_of(
    way: Way,
    done: dict[str, list[Round]],
    apart: float,
    peak_bytes: int | None,
    peak: float,  # operations a second of this device
) -> dict[str, Any]:
    "A way's figures."
    median_s, processor_s = (
        {key: statistics.median(getattr(one, name) for one in done[key]) for key in ("a", OURS.key, way.key)} for name in ("seconds", "processor_s")
    )
    own, counted = median_s[way.key], done[way.key][0].counted
    return {
        "way": way.key, "title": way.title, "rounds_s": [round(one.seconds, 4) for one in done[way.key]], "median_s": own,
        "processor_s": processor_s[way.key], "questions_per_s": counted.questions / own, "tokens_per_s": counted.tokens / own,
        "times_a": median_s["a"] / own, "times_d": median_s[OURS.key] / own,
        "processor_times_a": processor_s["a"] / processor_s[way.key], "processor_times_d": processor_s[OURS.key] / processor_s[way.key],
        "operations": counted.operations, "utilisation": counted.operations / own / peak, "peak_bytes": peak_bytes, "apart": apart,
    }


def printed(
    result: dict[str, Any],
):
    "Both sides and what else was tried, as text."
    print(f"\n{result['size']}: {result['parameters'] / 1e6:.1f} M parameters, {result['visual_tokens']} visual tokens a clip, "
          f"{result['clips_a_step']} clips and {6 * result['clips_a_step']} questions a step, {result['dtype']}")
    heads = ("median s", "min", "max", "proc. s", "questions/s", "tokens/s", "x (a)", "x (d)", "MFU", "MiB", "apart")
    print(" " * 50 + "".join(f"{head:>12}" for head in heads))
    for row in result["ways"]:
        memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}"
        seconds = (row["median_s"], min(row["rounds_s"]), max(row["rounds_s"]), row["processor_s"])
        cells = [*(f"{value:.2f}" for value in seconds), f"{row['questions_per_s']:.2f}", f"{row['tokens_per_s']:.0f}",
                 f"{row['times_a']:.2f}", f"{row['times_d']:.2f}", f"{row['utilisation']:.0%}", memory, f"{row['apart']:.0e}"]
        print(f"{row['way']:<10}{row['title']:<40}" + "".join(f"{cell:>12}" for cell in cells))


def machine(
    device: str,
    peaks: dict[str, float],  # type -> operations a second
) -> dict[str, Any]:
    "Where and with what the figures came about."
    name = torch.cuda.get_device_name() if device == "cuda" else cpu_name()
    return {
        "device": name, "threads": torch.get_num_threads(), "cores": os.cpu_count(), "busy_before": os.getloadavg()[0],
        "peak_flops": peaks, **provenance(), "git_revision": git_revision(HERE),
    }


def cpu_name() -> str:
    "What the processor calls itself."
    info = Path("/proc/cpuinfo")
    named = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return named[0] if named else platform.processor()


def run(
    sizes: Sequence[Size],
    rounds: int,
    path: Path,    # JSON file to make or replace
    folder: Path,  # for clips and cache
):
    "Measure, print, write down."
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peaks = {str(kind).removeprefix("torch."): peak_operations(device, kind) for kind in (torch.float32, torch.bfloat16)}
    where = machine(device, peaks)
    results = [measure(size, device, rounds, folder, peaks) for size in sizes]
    for result in results:
        printed(result)
    write_json(path, {"machine": where, "sizes": results})
    reached = ", ".join(f"{value / 1e9:.0f} GFLOP/s in {kind}" for kind, value in peaks.items())
    print(f"\nOne large product: {reached}; load before the run {where['busy_before']:.1f}\nWritten: {path.name}")


def main(
    words: Sequence[str] | None = None,
):
    "The command line."
    known = {size.name: size for size in (GPU_SIZES if torch.cuda.is_available() else CPU_SIZES)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=known, default=list(known))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / f"training_{'cuda' if torch.cuda.is_available() else 'cpu'}.json")
    parser.add_argument("--peak", help="only measure the memory of this way at this size")
    parser.add_argument("--folder", type=Path, help="where clips and cache are kept; else they are made and removed")
    given = parser.parse_args(words)
    sizes = [known[name] for name in given.sizes]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        if given.peak:
            [way] = [way for way in (*SIDES, *TRIED.get(sizes[0].name, ())) if way.key == given.peak]
            print(own_peak_bytes(sizes[0], way, folder))
        else:
            run(sizes, given.rounds, given.results, folder)


if __name__ == "__main__":
    main()
