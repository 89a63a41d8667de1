"""Six questions about a clip, answered one by one and together; clips decoded in two ways; an archive: part of `make bench`.

Every side begins with the clip's file and a loaded model. Their rounds alternate, and what they say is compared token for token.
`nbs/performance.ipynb` shows the result.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from bench_training import (
    BENCH_CARD,
    BENCH_TEXT,
    BENCH_VISION,
    GPU_CARD,
    POCKET,
    TEXT_2B,
    TEXT_7B,
    built,
    finish,
    machine,
)
from decoding import apart, by_pipe, check_equal_grids, cores, decode_alone, one_core, ours

from crashchat import infer
from crashchat.core import Answer, run_ahead, usable_cores, write_json
from crashchat.corpus import AHEAD, BATCH_TOKENS, WINDOW, Looked, cases_in, decoders, identified, look, outcomes, pick
from crashchat.estimate import in_use, peak_since
from crashchat.features import encode_frames
from crashchat.infer import Analyst, AnswerStore, Asked, Branch
from crashchat.model import PUBLISHED_VISION, Loaded, load_model, token_id
from crashchat.packing import embed
from crashchat.preprocess import clip_prefix, encode_question, read_clip
from crashchat.render import render
from crashchat.scenarios import draw_scenario, scenario_truth
from crashchat.simulate import CLIP_FPS, CLIP_HEIGHT_PX, CLIP_WIDTH_PX, write_clip
from crashchat.tasks import ALL, OWN_QUESTIONS, TASKS
from crashchat.video import probe

HERE = Path(__file__).resolve().parent
CLIP_S, FPS, HEIGHT, WIDTH = 10.0, 30, 720, 1280  # what a dash-cam writes
FOLLOW_UP = "Which vehicle should have waited, and what did its driver not see?"
# Tokens of an answer with its end-of-turn mark. Words are the median of the published answers about crashes; a full stop, a digit and a
# decimal point are a token each, as in the tokenizer of the published models.
PUBLISHED_TOKENS = {
    "crash_recognition": 2, "crash_description": 6, "causal_reasoning": 13, "prevention_reasoning": 42, "pre_crash_localization": 5,
    "crash_localization": 10, "free": 20,
}


@dataclass(frozen=True)
class Size:
    "A model, and how long its answers are."

    name: str
    make: Callable[[str], Loaded]  # device -> model, tokenizer, card
    tokens: Mapping[str, int] | None = None  # of each answer, for weights that never come to an end; None: as the model ends them
    archive: int = 0               # clips of each archive; 0: that is not measured


CPU_SIZES = (
    Size("pocket", lambda device: load_model(POCKET, POCKET / "adapter", device), archive=48),
    Size("bench", lambda device: built(device, BENCH_TEXT, BENCH_VISION, BENCH_CARD, torch.float32), PUBLISHED_TOKENS),
)
GPU_SIZES = tuple(
    Size(name, partial(built, text=text, vision=dict(PUBLISHED_VISION), card=GPU_CARD, dtype=torch.bfloat16), PUBLISHED_TOKENS, archive=24 if name == "2B" else 0)
    for name, text in (("2B", TEXT_2B), ("7B", TEXT_7B))
)


# --- clips


def write_road_clip(
    seed: int,        # of the scenario
    path: Path,       # mp4 file to make
    seconds: float | None = None,  # long; None: as drawn
):
    "A simulated scene as a dash-cam would keep it: 1280x720 H.264 at 30 frames a second, grainy, a key frame every two seconds."
    scenario = draw_scenario(seed)
    scenario = replace(scenario, duration_s=seconds or scenario.duration_s)
    grain = np.random.default_rng(seed).normal(0, 3, (4, HEIGHT, WIDTH, 1)).astype(np.int16)
    larger, scenes = VideoReformatter(), round(scenario.duration_s * 10)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "24", "g": str(2 * FPS)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, scene in enumerate(render(scenario, np.arange(scenes) / 10, 448, 252)):
            pixels = larger.reformat(av.VideoFrame.from_ndarray(scene, format="rgb24"), WIDTH, HEIGHT).to_ndarray().astype(np.int16)
            for turn in range(FPS // 10):
                shown = (pixels + grain[(number + turn) % len(grain)]).clip(0, 255).astype(np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        file.mux(stream.encode())


def crash_clip(
    folder: Path,
) -> Path:
    "A clip of ten seconds in which all six questions have an answer."
    seed = next(seed for seed in range(1000) if len(scenario_truth(draw_scenario(seed))) == len(ALL))
    path = folder / "crash.mp4"
    if not path.exists():
        write_road_clip(seed, path, CLIP_S)
    return path


def write_small_clip(
    seed: int,
    path: Path,
):
    "A clip of the demo's kind: 448x336, ten frames a second."
    write_clip(draw_scenario(seed), path)


ARCHIVES = {f"{WIDTH}x{HEIGHT}, {FPS} frames a second": write_road_clip, f"{CLIP_WIDTH_PX}x{CLIP_HEIGHT_PX}, {CLIP_FPS} frames a second": write_small_clip}


def clip_facts(
    path: Path,
) -> dict[str, Any]:  # plain JSON values
    "What a clip is."
    info = probe(path)
    return {"seconds": info.duration_s, "width": info.width_px, "height": info.height_px, "fps": info.fps, "bytes": path.stat().st_size}


def archive_clips(
    folder: Path,
    write: Callable[[int, Path], None],
    count: int,
) -> list[Path]:
    "Clips of different content and length. Every fourth is drawn; the next three are the same with empty boxes at their end."
    paths = [folder / write.__name__ / f"{number:03d}.mp4" for number in range(count)]
    paths[0].parent.mkdir(exist_ok=True)
    for number, path in enumerate(paths):
        if not path.exists() and number % 4 == 0:
            write(number, path)
        elif not path.exists():
            path.write_bytes(paths[number - number % 4].read_bytes() + b"\0\0\0\x08free" * (number % 4))
    return paths


# --- six answers


class Limited(Analyst):
    "An analyst whose answers are of given length."

    tokens: Mapping[str, int]

    def _asked(self, tasks: Sequence[str]) -> list[Asked]:
        return [replace(one, limit=self.tokens[one.task]) for one in super()._asked(tasks)]


@dataclass(frozen=True)
class Bench:
    "Everything that is there before the clock starts."

    size: Size
    device: str
    base: Loaded
    clip: Path
    folder: Path

    @property
    def tokens(self) -> Mapping[str, int]:
        "Most tokens of each answer."
        return self.size.tokens or {**{task: TASKS[task].max_tokens for task in ALL}, "free": PUBLISHED_TOKENS["free"]}

    def analyst(self, answers: AnswerStore | None = None) -> Limited:
        "One that has not seen anything yet."
        made = Limited(self.base, OWN_QUESTIONS, answers=answers)
        made.tokens = self.tokens
        made.engine.vocabulary  # noqa: B018  read off the tokenizer once for all clips
        return made


Said = Iterator[tuple[str, list[int]]]  # task, token ids of the answer, as soon as it is whole


@torch.no_grad()
def alone(
    bench: Bench,
    question: str,
    limit: int,
) -> list[int]:
    "One question from the clip's file to its answer, as the reference asks: nothing is shared with another."
    model: Any = bench.base.model
    tokenizer = bench.base.tokenizer
    clip = read_clip(bench.clip, bench.base.card)
    prefix = clip_prefix(clip.times_s.tolist(), clip.kept.sum(-1).tolist(), tokenizer, model.config.video_token_id)
    whole = torch.cat([prefix, encode_question(question, None, tokenizer)[0]])[None].to(bench.device)
    stop = token_id(tokenizer, "<|im_end|>")
    spoken = model.generate(
        inputs_embeds=embed(model, whole, encode_frames(model, clip)), attention_mask=torch.ones_like(whole), max_new_tokens=limit,
        do_sample=False, eos_token_id=stop, pad_token_id=token_id(tokenizer, "<|endoftext|>"),
    )[0].tolist()
    return spoken[: spoken.index(stop)] if stop in spoken else spoken


@contextmanager
def overheard() -> Iterator[list[Branch]]:
    "The branches an analyst answers with, in the order they are asked: an answer's text does not tell all of its tokens."
    heard: list[Branch] = []
    speak = infer.speak

    def listening(reading: Any, branches: Sequence[Branch], *rest: Any) -> Iterator[list[Branch]]:
        heard.extend(branches)
        return speak(reading, branches, *rest)

    with patch.object(infer, "speak", listening):
        yield heard


def separately(bench: Bench, analyst: Limited) -> Said:
    "Six passes."
    for task in ALL:
        yield task, alone(bench, OWN_QUESTIONS[task], bench.tokens[task])


def together(bench: Bench, analyst: Limited, sure: bool = False) -> Said:
    "One pass."
    with overheard() as heard:
        for piece in analyst.stream(bench.clip, ALL, grammar=sure, confidence=sure):
            if piece.answer:
                yield piece.task, heard[ALL.index(piece.task)].spoken


def further_alone(bench: Bench, analyst: Limited) -> Said:
    "Another question, from the clip's file on."
    yield "free", alone(bench, FOLLOW_UP, bench.tokens["free"])


def further(bench: Bench, analyst: Limited) -> Said:
    "Another question, about a clip that is held."
    with overheard() as heard, patch.object(infer, "FREE_TOKENS", bench.tokens["free"]):
        analyst.ask_freely(bench.clip, FOLLOW_UP)
    yield "free", heard[0].spoken


def again(bench: Bench, analyst: Limited) -> Said:
    "Six questions that were answered before."
    with overheard() as heard:
        for answer in analyst.ask(bench.clip, grammar=False, confidence=False):
            yield answer.task, []
    assert not heard, "they come from the store"


def asked_before(bench: Bench) -> Limited:
    "An analyst who has answered the six."
    analyst = bench.analyst()
    analyst.ask(bench.clip, grammar=False, confidence=False)
    return analyst


def stored_before(bench: Bench) -> Limited:
    "Another analyst, to whom what the first has answered is known from a file."
    path = bench.folder / f"answers_{bench.size.name}.sqlite"
    bench.analyst(AnswerStore(path)).ask(bench.clip, grammar=False, confidence=False)
    return bench.analyst(AnswerStore(path))


@dataclass(frozen=True)
class Way:
    "One way to answer."

    key: str
    title: str
    answer: Callable[[Bench, Limited], Said]
    against: str           # key of the way it is compared with
    same: bool = True      # must say, token for token, what that says
    ready: Callable[[Bench], Limited] = Bench.analyst  # what is there before the clock starts
    memory: bool = False   # worth a process of its own that measures it


WAYS = (
    Way("a", "six passes, each alone", separately, "a", memory=True),
    Way("b", "one shared pass", together, "a", memory=True),
    Way("c", "one shared pass, with grammar and confidence", partial(together, sure=True), "a", same=False, memory=True),
    Way("d", "a further question, alone", further_alone, "d"),
    Way("e", "a further question, the clip still held", further, "d", ready=asked_before),
    Way("f", "the six again, from the answer store", again, "a", same=False, ready=stored_before),
)


@dataclass(frozen=True)
class Round:
    "Figures of one way, once through."

    first_s: float           # until the first answer is whole
    all_s: float
    processor_s: float       # of all threads of this process: others on the machine do not count
    said: dict[str, list[int]]  # task -> token ids
    peak_bytes: int | None   # above what was in use before; None where the system does not tell


def one_round(
    bench: Bench,
    way: Way,
) -> Round:
    "Answer once."
    analyst = way.ready(bench)
    before = in_use(bench.device)
    finish(bench.device)
    began, processor = time.perf_counter(), time.process_time()
    said, at_s = {}, []
    for task, spoken in way.answer(bench, analyst):
        at_s.append(time.perf_counter() - began)
        said[task] = spoken
    return Round(at_s[0], at_s[-1], time.process_time() - processor, said, peak_since(bench.device, before))


def prepared(
    size: Size,
    device: str,
    folder: Path,  # for clips
) -> Bench:
    "Clip and model."
    return Bench(size, device, size.make(device), crash_clip(folder), folder)


def peak_elsewhere(
    size: Size,
    way: Way,
    folder: Path,
) -> int | None:
    "Peak memory of a way above the loaded model, in a process that does nothing else."
    words = [sys.executable, __file__, "--sizes", size.name, "--peak", way.key, "--folder", str(folder)]
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # freed memory goes back at once, so that what is needed is seen
    done = subprocess.run(words, env=at_once, capture_output=True, text=True, check=True)
    found = done.stdout.split()[-1]
    return None if found == "None" else int(found)


def answering(
    bench: Bench,
    rounds: int,  # timed, of each way in turn
) -> list[dict[str, Any]]:
    "All ways in turn. Ends the program if one does not say what it must."
    done: dict[str, list[Round]] = {way.key: [] for way in WAYS}
    for way in WAYS if bench.device == "cuda" else ():  # its kernels are compiled at their first use
        one_round(bench, way)
    for number in range(rounds):
        for way in WAYS:
            done[way.key].append(one_round(bench, way))
            print(f"{bench.size.name}  round {number + 1}  {way.key}  {done[way.key][-1].all_s:8.2f} s", flush=True)
            if way.same and number == 0:
                refuse_other_words(bench, way, done[way.key][0].said, done[way.against][0].said)
    here = bench.device == "cuda"
    peaks = {way.key: done[way.key][-1].peak_bytes if here else peak_elsewhere(bench.size, way, bench.folder) for way in WAYS if way.memory}
    return [way_row(way, done, peaks.get(way.key)) for way in WAYS]


def refuse_other_words(
    bench: Bench,
    way: Way,
    said: dict[str, list[int]],
    wanted: dict[str, list[int]],
):
    "End the program if float32 answers are not the same tokens. In bfloat16 the order of a sum decides between near equals."
    other = [task for task in wanted if said[task] != wanted[task]]
    if other and bench.base.model.dtype == torch.float32:
        sys.exit(f"{bench.size.name}: ({way.key}) {way.title} says something else than ({way.against}): {', '.join(other)}")


def way_row(
    way: Way,
    done: dict[str, list[Round]],
    peak_bytes: int | None,
) -> dict[str, Any]:  # plain JSON values
    "A way's figures, and how they compare."
    own, against = done[way.key], done[way.against]
    middle = {name: (statistics.median(getattr(one, name) for one in own), statistics.median(getattr(one, name) for one in against))
              for name in ("first_s", "all_s", "processor_s")}
    same = [task for task, spoken in against[0].said.items() if own[0].said[task] == spoken]
    return {
        "way": way.key, "title": way.title, "against": way.against, "rounds_s": [round(one.all_s, 4) for one in own],
        **{name: mine for name, (mine, _) in middle.items()}, "times_first": middle["first_s"][1] / middle["first_s"][0],
        "times_all": middle["all_s"][1] / middle["all_s"][0], "processor_times": middle["processor_s"][1] / middle["processor_s"][0],
        "answer_tokens": [len(spoken) for spoken in own[0].said.values()], "same_answers": len(same) if way.same else None,
        "peak_bytes": peak_bytes,
    }


# --- a clip made ready


READERS = (
    ("pipe", "full-size frames out of ffmpeg, shrunk by Pillow", by_pipe),
    ("ours", "as it is done here", ours),
    ("decode", "every frame decoded, nothing else", lambda path, card: decode_alone(path)),
)
PUBLISHED_CARD = replace(GPU_CARD, sampled_by="time")  # ten frames a second, at most 96, as the published models are shown a clip


def reading(
    clip: Path,
    rounds: int,
) -> list[dict[str, Any]]:  # plain JSON values: on one core, then on those there are
    "Seconds from a clip's file to its patches. Ends with AssertionError if two ways do not give the same frames at the same size."
    one, other = (read(clip, PUBLISHED_CARD) for _, _, read in READERS[:2])
    check_equal_grids(one, other)
    found = []
    for limited in (one_core, nullcontext):
        with limited():
            rounds_s: dict[str, list[float]] = {key: [] for key, _, _ in READERS}
            for _ in range(rounds):
                for key, _, read in READERS:
                    began = time.perf_counter()
                    read(clip, PUBLISHED_CARD)
                    rounds_s[key].append(time.perf_counter() - began)
            median_s = {key: statistics.median(seconds) for key, seconds in rounds_s.items()}
            found.append({"cores": cores(), "grid": list(one.grid), "apart": apart(one, other), "ways": [
                {"way": key, "title": title, "rounds_s": [round(value, 4) for value in rounds_s[key]], "median_s": median_s[key],
                 "times_pipe": median_s["pipe"] / median_s[key]} for key, title, _ in READERS]})
    return found


# --- an archive


def archive(
    bench: Bench,
    what: str,   # one of ARCHIVES
    rounds: int,
) -> dict[str, Any]:  # plain JSON values
    "Clips a second: decoding alone, the model alone, and both as the archive's engine runs them."
    threads = decoders()
    clips = [identified(case) for case in cases_in(archive_clips(bench.folder, ARCHIVES[what], bench.size.archive))]
    done: dict[str, list[tuple[float, float]]] = {"decode": [], "model": [], "both": []}
    differ = 0
    for _ in range(rounds):
        analyst = bench.analyst()
        with timed(bench, done["decode"]):
            held = [one for one in run_ahead(partial(look, analyst), clips, threads, AHEAD) if isinstance(one, Looked)]
        with timed(bench, done["model"]):
            alone = {one.clip.key: said for batch in batches(held) for one, said in zip(batch, answer(analyst, batch), strict=True)}
        held.clear()
        with timed(bench, done["both"]):
            found = {outcome.key: words(outcome.answers) for outcome in outcomes(analyst, clips, ALL)}
        differ = max(differ, sum(found[clip.key] != alone[clip.key] for clip in clips))
    median_s = {name: statistics.median(seconds for seconds, _ in figures) for name, figures in done.items()}
    processor_s = {name: statistics.median(seconds for _, seconds in figures) for name, figures in done.items()}
    slower_s = max(median_s["decode"], median_s["model"])
    return {
        "what": what, "clips": len(clips), "threads": threads, "cores": usable_cores(), "clips_that_differ": differ,
        "rounds_s": {name: [round(seconds, 3) for seconds, _ in figures] for name, figures in done.items()},
        "median_s": median_s, "processor_s": processor_s, "clips_per_s": {name: len(clips) / seconds for name, seconds in median_s.items()},
        "over_slower": median_s["both"] / slower_s - 1,
        "over_cores": median_s["both"] / max(slower_s, (processor_s["decode"] + processor_s["model"]) / usable_cores()) - 1,
    }


@contextmanager
def timed(
    bench: Bench,
    figures: list[tuple[float, float]],  # extended by seconds on the clock and of the processor
) -> Iterator[None]:
    "What happens inside takes so long."
    finish(bench.device)
    began, processor = time.perf_counter(), time.process_time()
    yield
    finish(bench.device)
    figures.append((time.perf_counter() - began, time.process_time() - processor))


def words(
    answers: Sequence[Answer],
) -> list[str]:
    "What was said."
    return [answer.text for answer in answers]


def answer(
    analyst: Analyst,
    batch: Sequence[Looked],
) -> list[list[str]]:
    "What the model says to one batch."
    return [words(answers) for answers in analyst.answer_all([one.seen for one in batch])]


def batches(
    held: Sequence[Looked],
) -> Iterator[list[Looked]]:
    "Clips as the archive's engine puts them together once it is under way."
    waiting = list(held)
    while waiting:
        batch = pick(waiting[:WINDOW], WINDOW // 2, BATCH_TOKENS)
        for one in batch:
            waiting.remove(one)
        yield batch


# --- all of it


def measure(
    size: Size,
    device: str,
    rounds: int,
    folder: Path,  # for clips
) -> dict[str, Any]:  # plain JSON values
    "Everything at one size."
    bench = prepared(size, device, folder)
    model: Any = bench.base.model
    clip = read_clip(bench.clip, bench.base.card)
    return {
        "size": size.name, "parameters": sum(tensor.numel() for tensor in model.parameters()), "dtype": str(model.dtype).removeprefix("torch."),
        "frames": clip.grid[0], "visual_tokens": int(clip.kept.sum()), "made_up_lengths": size.tokens is not None,
        "ways": answering(bench, rounds), "archives": [archive(bench, what, rounds) for what in ARCHIVES if size.archive],
    }


def printed(
    result: dict[str, Any],
):
    "Both sides of everything, as text."
    print(f"\n{result['size']}: {result['parameters'] / 1e6:.1f} M parameters, {result['visual_tokens']} visual tokens, {result['dtype']}")
    heads = ("first s", "all s", "min", "max", "proc. s", "x first", "x all", "x proc.", "MiB", "tokens")
    print(" " * 50 + "".join(f"{head:>10}" for head in heads) + "   against")
    for row in result["ways"]:
        memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}"
        seconds = (row["first_s"], row["all_s"], min(row["rounds_s"]), max(row["rounds_s"]), row["processor_s"])
        times = (row["times_first"], row["times_all"], row["processor_times"])
        cells = [*(f"{value:.3f}" for value in seconds), *(f"{value:.2f}" for value in times), memory, str(sum(row["answer_tokens"]))]
        print(f"{row['way']:<4}{row['title']:<46}" + "".join(f"{cell:>10}" for cell in cells) + f"   ({row['against']})")
    for whole in result["archives"]:
        rates = ", ".join(f"{name} {rate:.2f}" for name, rate in whole["clips_per_s"].items())
        print(f"{whole['clips']} clips of {whole['what']}, {whole['threads']} decoding threads, {whole['cores']} cores; clips/s: {rates}; both take "
              f"{whole['over_slower']:+.0%} of the slower alone, {whole['over_cores']:+.0%} of what the cores allow")


def run(
    sizes: Sequence[Size],
    rounds: int,
    path: Path,    # JSON file to make or replace
    folder: Path,  # for clips
):
    "Measure, print, write down."
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = machine(device, {})
    ready = reading(crash_clip(folder), rounds)
    results = [measure(size, device, rounds, folder) for size in sizes]
    for result in results:
        printed(result)
    for one in ready:
        told = "; ".join(f"{way['title']} {way['median_s']:.3f} s ({way['times_pipe']:.2f} times)" for way in one["ways"])
        print(f"A clip made ready, cores {one['cores']}, grid {one['grid']}: {told}")
    write_json(path, {"machine": where, "clip": clip_facts(crash_clip(folder)), "reading": ready, "sizes": results})
    print(f"\nLoad before the run {where['busy_before']:.1f}\nWritten: {path.name}")


def main(
    words: Sequence[str] | None = None,
):
    "The command line."
    known = {size.name: size for size in (GPU_SIZES if torch.cuda.is_available() else CPU_SIZES)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=known, default=list(known))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / f"inference_{'cuda' if torch.cuda.is_available() else 'cpu'}.json")
    parser.add_argument("--peak", choices=[way.key for way in WAYS], help="only measure the memory of this way at this size")
    parser.add_argument("--folder", type=Path, help="where clips are kept; else they are made and removed")
    given = parser.parse_args(words)
    sizes = [known[name] for name in given.sizes]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        if given.peak:
            [way] = [way for way in WAYS if way.key == given.peak]
            print(one_round(prepared(sizes[0], "cpu", folder), way).peak_bytes)
        else:
            run(sizes, given.rounds, given.results, folder)


if __name__ == "__main__":
    main()
