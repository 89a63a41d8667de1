"Every layout loads, converts and merges to the same model; what does not fit is refused by name."

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub import Hub, hub_served
from original import (
    by_hand,
    untied_pocket,
    write_hub,
    write_lora,
    write_merged,
    write_training,
)
from pocket import SHARED, pocket
from safetensors.torch import load_file, save_file

from crashchat.core import CrashchatError
from crashchat.features import weights_key
from crashchat.model import Loaded, ModelCard, load_model
from crashchat.zoo import BASELINE, ZOO, convert, merge, probe_logits, state_of, zoo_get, zoo_table

MODELS = SHARED / "reference" / "model"
recorded = pytest.mark.skipif(not MODELS.is_dir(), reason="the recordings of the original are not here")


def said(tokenizer, model):
    return probe_logits(Loaded(model, tokenizer, ModelCard("in memory")))


def same(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("make", [pocket, untied_pocket], ids=["tied", "untied"])
@pytest.mark.parametrize("layout", ["hub", "hub in shards", "training", "training, vision inside", "merged"])
def test_every_base_layout_loads_as_the_model_it_was_written_from(tmp_path, layout, make):
    tokenizer, model = make()
    write = {
        "hub": write_hub, "hub in shards": lambda *given: write_hub(*given, shards=5), "training": write_training,
        "training, vision inside": lambda *given: write_training(*given, apart=False), "merged": write_merged,
    }[layout]
    base = load_model(write(tmp_path / "m", model, tokenizer), device="cpu")
    same(probe_logits(base), said(tokenizer, model), 0)
    assert base.card.compress and base.card.sampled_by == "time" and base.card.name == "m"


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
def test_a_lora_checkpoint_is_what_its_arithmetic_says(tmp_path, pickled):
    tokenizer, model = pocket()
    write_training(tmp_path / BASELINE, model, tokenizer)
    write_lora(tmp_path / "crash_recognition_independent_monotask", model, tokenizer, pickled)
    wanted = said(tokenizer, by_hand(pocket()[1]))
    given = load_model(tmp_path / BASELINE, tmp_path / "crash_recognition_independent_monotask", device="cpu")
    same(probe_logits(given), wanted)
    alone = load_model(tmp_path / "crash_recognition_independent_monotask", device="cpu")  # its base lies beside it
    same(probe_logits(alone), wanted)
    assert alone.adapter and alone.adapter.strategy == "crash_recognition_independent_monotask"
    assert (wanted - said(tokenizer, model)).abs().max() > 0.1


def test_an_adapter_that_changes_the_encoder_shares_no_features_with_its_base(tmp_path):
    tokenizer, model = pocket()
    write_hub(tmp_path / "base", model, tokenizer)
    write_lora(tmp_path / "lora", model, tokenizer)
    base, tuned = load_model(tmp_path / "base", device="cpu"), load_model(tmp_path / "base", tmp_path / "lora", device="cpu")
    assert weights_key(base.model) != weights_key(tuned.model)


def test_converting_and_merging_keep_what_is_said(tmp_path, capsys):
    tokenizer, model = untied_pocket()
    write_training(tmp_path / "base", model, tokenizer)
    write_lora(tmp_path / "lora", model, tokenizer)
    assert convert(tmp_path / "base", tmp_path / "native") == 0
    assert convert(tmp_path / "lora", tmp_path / "adapter", base=tmp_path / "base") < 1e-5
    assert merge(tmp_path / "base", tmp_path / "lora", tmp_path / "merged") < 1e-3
    assert merge(tmp_path / "native", tmp_path / "adapter", tmp_path / "merged again") < 1e-3
    wanted = said(tokenizer, by_hand(untied_pocket()[1]))
    for folders in (("native", "adapter"), ("base", "adapter"), ("native", "lora"), ("merged",), ("merged again",)):
        same(probe_logits(load_model(*(tmp_path / name for name in folders), device="cpu")), wanted, 1e-3)
    assert json.loads((tmp_path / "native" / "config.json").read_text())["model_type"] == "video_llama_3"
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_result_that_says_something_else_is_not_kept(tmp_path, monkeypatch):
    tokenizer, model = pocket()
    write_hub(tmp_path / "base", model, tokenizer)

    def other(folder, model, *rest):
        with torch.no_grad():
            model.model.projector.readout[0].weight *= 1.5
        write(folder, model, *rest)

    write = sys.modules["crashchat.zoo"].save_model
    monkeypatch.setattr("crashchat.zoo.save_model", other)
    with pytest.raises(CrashchatError, match=r"native: differs from its source by .* in a logit"):
        convert(tmp_path / "base", tmp_path / "native")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    for call in (lambda: convert(tmp_path, tmp_path / "out"), lambda: merge(tmp_path, tmp_path, tmp_path / "out")):
        with pytest.raises(CrashchatError, match="out: is there already"):
            call()


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


@pytest.mark.parametrize("content, match", [
    (lambda: pickle.dumps(Bomb(), 2), "pytorch_model.bin: is not a file of tensors alone"),
    (lambda: b"PK\x03\x04 torn", "pytorch_model.bin: (cannot be read as tensors|is not a file of tensors)"),
    (lambda: b"", "pytorch_model.bin: cannot be read as tensors"),
], ids=["code", "torn", "empty"])
def test_a_pickle_that_is_not_tensors_is_refused_unread(tmp_path, monkeypatch, content, match):
    tokenizer, model = pocket()
    write_merged(tmp_path / "m", model, tokenizer)
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(content())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CrashchatError, match=match) as refused:
        load_model(tmp_path / "m", device="cpu")
    assert "\n" not in str(refused.value) and not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("held, match", [
    ({"model.norm.weight": "text"}, "key='model.norm.weight' must hold tensors only, holds str"),
    ([torch.ones(1)], "must hold tensors by name, holds list"),
    ({3: torch.ones(1)}, "key=3 must hold tensors only"),
])
def test_a_bin_of_other_things_is_refused(tmp_path, held, match):
    tokenizer, model = pocket()
    write_merged(tmp_path / "m", model, tokenizer)
    torch.save(held, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(CrashchatError, match=match):
        load_model(tmp_path / "m", device="cpu")


def test_shards_that_are_torn_or_gone_are_named(tmp_path):
    tokenizer, model = pocket()
    folder = write_hub(tmp_path / "m", model, tokenizer, shards=3)
    torn = folder / "model-00002-of-00003.safetensors"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-100])
    with pytest.raises(CrashchatError, match="model-00002-of-00003.safetensors: cannot be read as tensors"):
        load_model(folder, device="cpu")
    torn.unlink()
    with pytest.raises(CrashchatError, match="index.json: weight_map='model-00002-of-00003.safetensors' lists a file that is not here"):
        load_model(folder, device="cpu")
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**places, "x": "../../secret.safetensors"}}))
    with pytest.raises(CrashchatError, match="must be a path below"):
        load_model(folder, device="cpu")
    index.unlink()
    with pytest.raises(CrashchatError, match="holds no weights"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("change, match", [
    ({"image_token_index": None}, "config.json: image_token_index=None must be a token id"),
    ({"vision_encoder_config": [1]}, "config.json: vision_encoder_config=.* must be an object"),
    ({"num_hidden_layers": 5}, "m: cannot be loaded: .*num_hidden_layers"),
    ({"num_hidden_layers": 5, "layer_types": None}, r"m: key='model.language_model.layers.4.input_layernorm.weight' lacks 12 weights"),
    ({"hidden_size": 96}, "has shape"),
    ({"model_type": "llama"}, "model_type='llama' is not a VideoLLaMA3"),
])
def test_settings_that_do_not_fit_the_weights_are_refused(tmp_path, change, match):
    tokenizer, model = pocket()
    folder = write_hub(tmp_path / "m", model, tokenizer)
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**held, **change}))
    with pytest.raises(CrashchatError, match=match):
        load_model(folder, device="cpu")


def test_a_native_checkpoint_may_leave_its_type_unsaid(tmp_path):
    tokenizer, model = pocket()
    convert(write_hub(tmp_path / "m", model, tokenizer), tmp_path / "native")
    config = tmp_path / "native" / "config.json"
    held = json.loads(config.read_text())
    config.write_text(json.dumps({key: value for key, value in held.items() if "dtype" not in key}))
    same(probe_logits(load_model(tmp_path / "native", device="cpu")), said(tokenizer, model), 0)


def test_an_encoder_that_is_not_described_is_taken_for_the_published_one(tmp_path, caplog):
    tokenizer, model = pocket()
    write_training(tmp_path / "m", model, tokenizer, apart=False)
    shutil.rmtree(tmp_path / "vision_navit")
    with pytest.raises(CrashchatError, match=r"model.safetensors: key='model.* has shape"):
        load_model(tmp_path / "m", device="cpu")  # this one is smaller
    assert "../vision_navit lies neither beside it nor in it" in caplog.text


def test_an_adapter_for_a_base_of_another_size_is_refused_by_its_first_key(tmp_path):
    tokenizer, model = pocket()
    write_lora(tmp_path / "lora", model, tokenizer)
    small = pocket()[1].config
    small.text_config.num_hidden_layers, small.text_config.layer_types = 3, small.text_config.layer_types[:3]
    fewer = type(model)._from_config(small)
    write_hub(tmp_path / "fewer", fewer, tokenizer)
    with pytest.raises(CrashchatError, match=r"lora: key='model.language_model.layers.3.mlp.down_proj.lora_A.weight' .* has no place"):
        load_model(tmp_path / "fewer", tmp_path / "lora", device="cpu")


@pytest.mark.parametrize("damage, match", [
    ("missing", "layers.0.mlp.up_proj.lora_B.weight' .* is missing"),
    ("shape", r"has shape \(3, 192\), this base needs \(4, 192\)"),
    ("foreign", "adapter_model.safetensors: key='base_model.model.lm_head.weight' is no weight that an adapter may change"),
    ("no projector weight", "projector.readout.0.bias' .* is missing"),
    ("twice", "non_lora_trainables.bin: key=.* stands twice"),
])
def test_adapters_that_are_not_whole_are_refused_by_their_first_key(tmp_path, damage, match):
    tokenizer, model = pocket()
    write_hub(tmp_path / "base", model, tokenizer)
    folder = write_lora(tmp_path / "lora", model, tokenizer)
    lora, projector = load_file(folder / "adapter_model.safetensors"), torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    key = "base_model.model.model.layers.0.mlp.up_proj.lora_"
    if damage == "missing":
        del lora[f"{key}B.weight"]
    elif damage == "shape":
        lora[f"{key}A.weight"] = lora[f"{key}A.weight"][:3].clone()
    elif damage == "foreign":
        lora["base_model.model.lm_head.weight"] = torch.ones(2)
    elif damage == "no projector weight":
        del projector["base_model.model.model.mm_projector.readout.0.bias"]
    else:
        projector[f"{key}A.weight"] = lora[f"{key}A.weight"]
    save_file(lora, folder / "adapter_model.safetensors")
    torch.save(projector, folder / "non_lora_trainables.bin")
    with pytest.raises(CrashchatError, match=match):
        load_model(tmp_path / "base", folder, device="cpu")


@pytest.mark.parametrize("settings, match", [
    ({"peft_type": "PREFIX_TUNING"}, "is not the configuration of a LoRA adapter"),
    ({"bias": "all"}, "is not the configuration of a LoRA adapter without bias"),
    ({"r": 0}, "is not a LoRA configuration|does not fit"),
    ({"target_modules": ["nothing_proj"]}, "does not fit the base"),
    ({"alpha_pattern": {"q_proj": 32}}, "adapter_config.json: alpha_pattern=.* is a setting that is not understood here"),
    ({"layers_to_transform": [0, 1]}, r"adapter_config.json: layers_to_transform=\[0, 1\] is a setting"),
])
def test_adapter_settings_that_cannot_be_are_refused(tmp_path, settings, match):
    tokenizer, model = pocket()
    write_hub(tmp_path / "base", model, tokenizer)
    folder = write_lora(tmp_path / "lora", model, tokenizer, **settings)
    with pytest.raises(CrashchatError, match=match):
        load_model(tmp_path / "base", folder, device="cpu")


def test_an_adapter_without_a_base_says_what_to_do(tmp_path):
    tokenizer, model = pocket()
    folder = write_lora(tmp_path / "lora", model, tokenizer, base_model_name_or_path="/etc")
    with pytest.raises(CrashchatError, match="its base does not lie beside it: load the base and give this as its adapter"):
        load_model(folder, device="cpu")
    write_hub(tmp_path / "base", model, tokenizer)
    with pytest.raises(CrashchatError, match="is an adapter itself, and takes no other"):
        load_model(folder, folder, device="cpu")


PEAK = """
import sys
from pathlib import Path
from crashchat.zoo import convert

def peak_kib():  # of this program alone: getrusage remembers what its parent held before
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])

convert(sys.argv[1], sys.argv[2])
before = peak_kib()
convert(sys.argv[3], sys.argv[4])
print(peak_kib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of a process's memory is read from Linux's /proc")
def test_converting_shards_takes_one_copy_and_the_largest_shard(tmp_path):
    tokenizer, model = pocket()
    write_hub(tmp_path / "small", model, tokenizer)
    config = model.config
    config.text_config.hidden_size, config.text_config.intermediate_size, config.text_config.num_attention_heads = 768, 4096, 12
    config.text_config.num_key_value_heads, config.text_config.num_hidden_layers = 12, 10
    config.text_config.layer_types = ["full_attention"] * 10
    big = type(model)._from_config(config)
    size = sum(tensor.nbytes for tensor in big.state_dict().values())
    folder = write_hub(tmp_path / "big", big, tokenizer, shards=8)
    del big
    shard = max(path.stat().st_size for path in folder.glob("*.safetensors"))
    done = subprocess.run([sys.executable, "-c", PEAK, *(str(tmp_path / name) for name in ("small", "out", "big", "out2"))],
                          capture_output=True, text=True, check=True)
    taken = int(done.stdout) * 1024
    assert size > 400 << 20
    print(f"model {size >> 20} MiB, largest shard {shard >> 20}, taken {taken >> 20}")
    assert size / 2 < taken < size + shard + (64 << 20), (taken, size, shard)  # the rest is the allocator's


def test_the_zoo_has_its_ten_rows(tmp_path):
    table = zoo_table(tmp_path)
    assert len(table) == len(ZOO) == 10 and set(table["here"]) == {"not here"}
    tokenizer, model = pocket()
    write_training(tmp_path / "ckpt" / BASELINE, model, tokenizer)
    write_lora(tmp_path / "ckpt" / "heterogeneous_multitask", model, tokenizer)
    (tmp_path / "ckpt" / "crash_recognition_independent_monotask").mkdir()
    table = zoo_table(tmp_path).set_index("name")
    assert table.loc[BASELINE, "here"] == table.loc["heterogeneous_multitask", "here"] == "here"
    assert table.loc[BASELINE, "size_gib"] > 0
    assert table.loc["crash_recognition_independent_monotask", "here"].startswith("not whole: holds no weights")
    assert table.loc["heterogeneous_multitask", "hub"] == "KDliang/crashchat/ckpt/heterogeneous_multitask"
    assert state_of(tmp_path / "none") == ("not here", 0)


def test_an_unreachable_hub_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CrashchatError, match="heterogeneous_multitask: could not be fetched from the hub") as refused:
        zoo_get("heterogeneous_multitask", tmp_path)
    assert "\n" not in str(refused.value)
    with pytest.raises(CrashchatError, match="zoo: name='other' unknown model; known: videollama3_baseline"):
        zoo_get("other", tmp_path)


@recorded
@pytest.mark.parametrize("source", ["baseline", "original_hf_style", "merged", "lora_checkpoint"])
def test_recorded_checkpoints_convert(tmp_path, source):
    assert convert(MODELS / source, tmp_path / "native") < 1e-4
    if source == "lora_checkpoint":
        one, other = load_model(MODELS / "baseline", tmp_path / "native", device="cpu"), load_model(MODELS / source, device="cpu")
    else:
        one, other = load_model(tmp_path / "native", device="cpu"), load_model(MODELS / source, device="cpu")
    same(probe_logits(one), probe_logits(other), 1e-4)


@recorded
def test_merging_the_recorded_adapter_gives_the_recorded_merge(tmp_path):
    assert merge(MODELS / "baseline", MODELS / "lora_checkpoint", tmp_path / "merged") < 1e-4
    same(probe_logits(load_model(tmp_path / "merged", device="cpu")), probe_logits(load_model(MODELS / "merged", device="cpu")), 1e-4)




def test_a_model_is_fetched_and_a_broken_download_goes_on(tmp_path):
    tokenizer, model = pocket()
    made = write_lora(tmp_path / "made", model, tokenizer)
    Hub.files = {f"ckpt/heterogeneous_multitask/{path.name}": path.read_bytes() for path in sorted(made.iterdir())}
    Hub.files["ckpt/heterogeneous_multitask/large.bin"] = os.urandom(24 << 20)  # downloads come in pieces of 10 MiB
    Hub.files["ckpt/other/model.safetensors"] = b"not asked for"
    fetch = "import sys; from crashchat.cli import main; sys.argv = ['crashchat', 'zoo', 'get', sys.argv[1]]; main()"
    (tmp_path / "project").mkdir()

    def get(name):
        return subprocess.run([sys.executable, "-c", fetch, name], cwd=tmp_path / "project", env=hub_served(tmp_path / "home"), capture_output=True, text=True)

    done = get("heterogeneous_multitask")
    assert done.stdout.strip() == "ckpt/heterogeneous_multitask", done.stderr
    folder = tmp_path / "project" / "ckpt" / "heterogeneous_multitask"
    came = {f"ckpt/heterogeneous_multitask/{path.name}": path.read_bytes() for path in folder.iterdir()}
    assert came == {name: body for name, body in Hub.files.items() if "other" not in name}
    assert [part for name, part in Hub.asked if name.endswith("large.bin")] == [None, f"bytes={10 << 20}-"]
    (folder / "adapter_model.safetensors").unlink()
    Hub.asked.clear()
    assert get("heterogeneous_multitask").returncode == 0
    assert {name.rpartition("/")[2] for name, _ in Hub.asked} == {"adapter_model.safetensors"}  # the others had come
    assert not (tmp_path / "project" / "ckpt" / "other").exists()
    absent = get("crash_recognition_independent_monotask")
    assert absent.returncode == 2 and absent.stderr.splitlines()[-1].endswith("is not on the hub")
