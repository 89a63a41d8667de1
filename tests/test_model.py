import errno
import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel
from pocket import SHARED, WORDS, noise_clip, pocket, saved_pocket
from safetensors.torch import load_file, save_file

from crashchat.core import CrashchatError, whole_folder
from crashchat.features import encode_frames
from crashchat.infer import Branch, Vocabulary, speak
from crashchat.model import (
    AdapterCard,
    ModelCard,
    adapter_recipe,
    adapter_tensors,
    add_adapter,
    attend,
    attention_for,
    base_key,
    fuse,
    layer_numbers,
    load_model,
    native_name,
    new_adapter,
    read_card,
    save_adapter,
    token_id,
    train_tokenizer,
    use_liger,
)
from crashchat.packing import embed, join, pack, read_clips, token_losses
from crashchat.preprocess import ClipInput, clip_prefix, encode_question
from crashchat.zoo import merge, probe_logits


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(WORDS * 5)


@pytest.mark.parametrize("tenths", range(0, 100, 7))
def test_a_time_is_one_token_with_or_without_a_space(tokenizer, tenths):
    time = f"{tenths / 10:.1f}"
    for text in (f"{time} seconds", f"1.0 - {time}", f",Time {time}s:"):
        assert time in [tokenizer.decode([token]) for token in tokenizer(text)["input_ids"]]


@pytest.mark.parametrize("text", ["été 漢字 \U0001f697", "a  b\n\tc", "12.34.5", "", "<b>&amp;</b>", "10.5 - 99.9"])
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_model_survives_saving(tmp_path):
    tokenizer, model = pocket()
    loaded = load_model(saved_pocket(tmp_path / "pocket"), device="cpu")
    ids = torch.tensor([tokenizer("Was there a crash?")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=0)
    assert loaded.card.notice and "simulated" in loaded.card.notice
    assert [p.name for p in tmp_path.iterdir()] == ["pocket"]


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    with whole_folder(tmp_path / "made") as building:
        (building / "a").write_text("first")
    with pytest.raises(CrashchatError, match=r"made: cannot be written: no space left"):
        with whole_folder(tmp_path / "made") as building:
            (building / "a").write_text("second")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "a").read_text() == "first"
    with whole_folder(tmp_path / "made") as building:
        (building / "b").write_text("third")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["b"]


def test_what_is_no_videollama3_is_refused(tmp_path):
    folder = saved_pocket(tmp_path / "pocket")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(CrashchatError, match=r"config.json: model_type='llama'"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CrashchatError, match="config.json: no such file"):
        load_model(folder)
    with pytest.raises(CrashchatError, match="no such checkpoint folder"):
        load_model(tmp_path / "absent")


@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "truncated"])
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, damage):
    folder = saved_pocket(tmp_path / "pocket")
    path, name = folder / "model.safetensors", "model.projector.readout.0.bias"
    weights = load_file(path)
    if damage == "missing":
        del weights[name]
    elif damage == "extra":
        weights["model.projector.stray"] = weights[name].clone()
        name = "model.projector.stray"
    elif damage == "shape":
        weights[name] = weights[name][:-1].clone()
    save_file(weights, path, {"format": "pt"})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
        name = "cannot be read as tensors"
    with pytest.raises(CrashchatError, match=name) as refused:
        load_model(folder)
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)


def test_a_malformed_card_is_refused(tmp_path):
    (tmp_path / "crashchat.json").write_text('{"name": "x", "colour": "red"}')
    with pytest.raises(CrashchatError, match="colour"):
        read_card(tmp_path, ModelCard("x"))
    assert read_card(tmp_path / "none", ModelCard("VideoLLaMA3-7B")) == ModelCard("VideoLLaMA3-7B", 10.0, 96, "time", 10240, 16, True, None)


def test_attention_is_chosen_not_crashed_on():
    assert attention_for("cpu")["text_config"] == "sdpa_float32"


def test_attention_on_a_cpu_is_computed_in_float32_under_autocast():
    query, key, value = torch.randn(3, 2, 3, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = attend(torch.nn.Module(), query, key, value, mask, scaling=0.5)
    scores = (query.float() @ key.float().transpose(-1, -2) * 0.5).masked_fill(~mask, -torch.inf)
    exact = (scores.softmax(-1) @ value.float()).transpose(1, 2)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), exact, rtol=2**-8, atol=1e-6)  # nothing lost but the rounding of the result


def tuned_pocket(tmp_path, model=None, kind="lora", layers="all"):
    "An adapter with random weights, on disk and in memory."
    model = model or pocket()[1]
    key = base_key(model)
    tuned = new_adapter(model, 4, 8, 0.0, kind, layers)
    torch.manual_seed(1)
    for tensor in tuned.parameters():
        if tensor.requires_grad:
            tensor.data += torch.randn_like(tensor) * 0.1
    card = AdapterCard("mine", "heterogeneous_multitask", "pocket", key, "crashchat", {"crash_recognition": "Crash?"})
    save_adapter(tmp_path / "adapter", tuned, card)
    return tuned.eval(), card


def test_an_adapter_survives_saving_and_peft_alone_can_load_it(tmp_path):
    tuned, card = tuned_pocket(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    features = torch.randn(12, 96)
    ours, theirs = pocket()[1], pocket()[1]
    assert add_adapter(ours, tmp_path / "adapter")[1] == card
    theirs = PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    with torch.no_grad():
        wanted = tuned(input_ids=ids).logits
        torch.testing.assert_close(ours(input_ids=ids).logits, wanted)
        torch.testing.assert_close(theirs(input_ids=ids).logits, wanted)
        assert (pocket()[1](input_ids=ids).logits - wanted).abs().max() > 0.01
        projector = tuned.get_base_model().model.projector
        torch.testing.assert_close(ours.model.projector(features), projector(features))
        assert (pocket()[1].model.projector(features) - projector(features)).abs().max() > 0.01


def test_an_adapter_of_another_base_is_refused(tmp_path):
    tuned_pocket(tmp_path)
    with pytest.raises(CrashchatError, match="another base model"):
        add_adapter(pocket(seed=1)[1], tmp_path / "adapter")
    with pytest.raises(CrashchatError, match="is not an adapter: no adapter_config.json"):
        add_adapter(pocket()[1], tmp_path / "absent")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(CrashchatError, match="adapter_model.safetensors: cannot be read as tensors"):
        add_adapter(pocket()[1], tmp_path / "adapter")


def test_lora_stays_in_the_language_model_and_the_projector_is_whole():
    tuned = new_adapter(pocket()[1], rank=4, alpha=8, dropout=0.0)
    trained = {name for name, tensor in tuned.named_parameters() if tensor.requires_grad}
    assert len([name for name in trained if "lora_" in name]) == 4 * 7 * 2
    assert all("language_model" in name or "projector" in name for name in trained)
    assert len([name for name in trained if "projector" in name]) == 4


@pytest.mark.parametrize("layers", ["all", "1-2", "3", "3, 0-1"])
@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_every_kind_of_adapter_on_any_layers_comes_back_as_it_was(tmp_path, kind, layers):
    folder = saved_pocket(tmp_path / "pocket")
    tuned, card = tuned_pocket(tmp_path, kind=kind, layers=layers)
    numbers = layer_numbers(layers, 4)
    adapted = {name.split(".lora_")[0] for name, tensor in tuned.named_parameters() if ".lora_" in name and tensor.requires_grad}
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in adapted} == set(numbers) and len(adapted) == 7 * len(numbers)
    ours = load_model(folder, tmp_path / "adapter", device="cpu")
    theirs = PeftModel.from_pretrained(load_model(folder, device="cpu").model, tmp_path / "adapter").eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        wanted = tuned(input_ids=ids).logits
        torch.testing.assert_close(ours.model(input_ids=ids).logits, wanted, rtol=0, atol=0)
        torch.testing.assert_close(theirs(input_ids=ids).logits, wanted, rtol=0, atol=0)
    assert ours.adapter == card and (probe_logits(ours) - probe_logits(load_model(folder, device="cpu"))).abs().max() > 0.01


def test_kinds_scale_and_weigh_as_their_papers_say():
    scale = {kind: new_adapter(pocket()[1], 4, 8, 0.0, kind).model.model.language_model.layers[0].mlp.up_proj for kind in ("lora", "rslora", "dora")}
    assert scale["lora"].scaling["default"] == 8 / 4 and scale["rslora"].scaling["default"] == 8 / 2
    length = scale["dora"].lora_magnitude_vector["default"].weight
    torch.testing.assert_close(length, pocket()[1].model.language_model.layers[0].mlp.up_proj.weight.norm(dim=1))


@pytest.mark.parametrize("choice, numbers", [("all", [0, 1, 2, 3]), ("2", [2]), ("0-1,3", [0, 1, 3]), (" 2 - 3 , 2", [2, 3])])
def test_layers_are_chosen_by_number(choice, numbers):
    assert layer_numbers(choice, 4) == numbers


@pytest.mark.parametrize("choice", ["", "4", "3-4", "2-1", "1,,2", "-1", "1-", "last", "1.0", "0-1-2", "\u0661", "9" * 40])
def test_layers_that_are_not_there_are_refused(choice):
    with pytest.raises(CrashchatError, match="new adapter: lora_layers=") as refused:
        new_adapter(pocket()[1], 4, 8, 0.0, "lora", choice)
    assert refused.value.args[3] == choice


@pytest.mark.parametrize("kind, problem", [("LoRA", "must be one of lora, dora, rslora, qlora"), ("qlora", "needs a base in four bits")])
def test_kinds_that_do_not_fit_are_refused(kind, problem):
    with pytest.raises(CrashchatError, match=f"new adapter: lora_kind='{kind}' {problem}"):
        new_adapter(pocket()[1], 4, 8, 0.0, kind)


def test_an_adapter_on_some_layers_that_has_lost_one_is_refused(tmp_path):
    tuned_pocket(tmp_path, layers="1-2")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if ".layers.2." not in name}, path, {"format": "pt"})
    with pytest.raises(CrashchatError, match=r"layers\.2\.mlp\.down_proj\.lora_A\.weight' .* is missing"):
        add_adapter(pocket()[1], tmp_path / "adapter")


def test_a_pattern_of_someone_else_is_not_run(tmp_path):
    tuned, _ = tuned_pocket(tmp_path)
    path = tmp_path / "adapter" / "adapter_config.json"
    for pattern in (r".*(a+)+(up|down)_proj", tuned.peft_config["default"].target_modules.replace(r"\d+", r"((\d+)+)"), ""):
        path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": pattern}))
        read = adapter_recipe(tmp_path / "adapter", adapter_tensors(tmp_path / "adapter"))
        assert "+" not in str(read.target_modules)
        add_adapter(pocket()[1], tmp_path / "adapter")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_precision_is_the_same_base(tmp_path, dtype):
    folder = saved_pocket(tmp_path / "pocket")
    whole, half = load_model(folder, device="cpu"), load_model(folder, device="cpu", dtype=dtype)
    assert {tensor.dtype for tensor in half.model.parameters()} == {dtype} == {half.model.dtype, half.model.config.dtype}
    assert half.model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32
    assert base_key(half.model) == base_key(whole.model) == base_key(pocket()[1])
    apart, size = (probe_logits(half) - probe_logits(whole)).abs().max(), probe_logits(whole).abs().max()
    assert 0 < apart < 0.05 * size
    tuned, card = tuned_pocket(tmp_path, half.model)
    assert load_model(folder, tmp_path / "adapter", device="cpu").adapter == card  # on the base as it is stored
    again = load_model(folder, tmp_path / "adapter", device="cpu", dtype=dtype)
    torch.testing.assert_close(probe_logits(again), probe_logits(half), rtol=0, atol=0)


def a_step(tokenizer, tuned):
    "The losses of a clip's two questions under autocast, and the gradients of what is trained."
    prefix, features = noise_clip(tokenizer, tuned.get_base_model())
    asked = [encode_question(question, "Yes", tokenizer) for question in ("Was there a crash?", "A car?")]
    with torch.autocast("cpu", torch.bfloat16):
        losses = token_losses(tuned, join([pack(prefix, asked)], [features]))
    losses.mean().backward()
    return losses.detach(), {name: tensor.grad for name, tensor in tuned.named_parameters() if tensor.requires_grad}


def test_what_is_trained_is_float32_on_a_base_that_is_not(tmp_path):
    tokenizer = pocket()[0]
    folder = saved_pocket(tmp_path / "pocket")
    exact, _ = a_step(tokenizer, new_adapter(load_model(folder, device="cpu").model, 4, 8, 0.0))
    for kind in ("lora", "dora"):
        tuned = new_adapter(load_model(folder, device="cpu", dtype=torch.bfloat16).model, 4, 8, 0.0, kind)
        kinds = {tensor.requires_grad: tensor.dtype for tensor in tuned.parameters()}
        assert kinds == {True: torch.float32, False: torch.bfloat16}
        losses, grads = a_step(tokenizer, tuned)
        assert losses.dtype == torch.float32 and (losses - exact).abs().max() < 0.05 * exact.max()
        assert {grad.dtype for grad in grads.values()} == {torch.float32}
        assert all(grad.isfinite().all() for grad in grads.values())
        assert all(grad.any() for name, grad in grads.items() if "projector" in name or "lora_B" in name)


def test_four_bits_without_bitsandbytes_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("crashchat.model.find_spec", lambda name: None)
    with pytest.raises(CrashchatError, match=r"pocket: four_bit=True needs bitsandbytes, .*: pip install 'crashchat\[gpu\]'"):
        load_model(saved_pocket(tmp_path / "pocket"), device="cpu", four_bit=True)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind, layers", [("qlora", "all"), ("qlora", "1-2"), ("dora", "3")])
def test_four_bits_hold_the_decoder_and_train_an_adapter_for_the_whole_base(tmp_path, kind, layers):
    tokenizer = pocket()[0]
    folder = saved_pocket(tmp_path / "pocket")
    base = load_model(folder, device="cpu", four_bit=True, dtype=torch.bfloat16)
    small = {name for name, tensor in base.model.named_parameters() if tensor.dtype == torch.uint8}
    assert len(small) == 4 * 7 and all("language_model.layers" in name and "_proj.weight" in name for name in small)
    whole, quantised = probe_logits(load_model(folder, device="cpu")), probe_logits(base)
    assert 0 < (whole - quantised).norm() < 0.5 * whole.norm()
    tuned, card = tuned_pocket(tmp_path, base.model, kind, layers)
    losses, grads = a_step(tokenizer, tuned)
    assert losses.isfinite().all() and all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads.values())
    assert set(json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["modules_to_save"]) == {"projector"}
    again = load_model(folder, tmp_path / "adapter", device="cpu", four_bit=True, dtype=torch.bfloat16)
    torch.testing.assert_close(probe_logits(again), probe_logits(base), rtol=0, atol=0)
    assert load_model(folder, tmp_path / "adapter", device="cpu").adapter == card
    assert merge(folder, tmp_path / "adapter", tmp_path / "merged") < 1e-3


def test_liger_is_left_out_where_there_is_no_gpu():
    model = pocket()[1]
    before = [type(module) for module in model.modules()]
    assert use_liger(model) is False and [type(module) for module in model.modules()] == before


def stand_in():
    "liger-kernel's layers in plain PyTorch, as their constructors are called, and how often each is used."
    used = {"norm": 0, "swiglu": 0, "rotary": 0}

    class LigerRMSNorm(torch.nn.RMSNorm):
        def __init__(self, hidden_size, eps=1e-6):
            super().__init__(hidden_size, eps)

        def forward(self, x):
            used["norm"] += 1
            return super().forward(x)

    class LigerSwiGLUMLP(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.gate_proj = torch.nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
            self.up_proj = torch.nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
            self.down_proj = torch.nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

        def forward(self, x):
            used["swiglu"] += 1
            return self.down_proj(torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))

    def rotary(q, k, cos, sin, position_ids=None, unsqueeze_dim=1):
        used["rotary"] += 1
        half = q.shape[-1] // 2
        turned = [torch.cat([-tensor[..., half:], tensor[..., :half]], -1) for tensor in (q, k)]
        return tuple(tensor * cos[:, None] + other * sin[:, None] for tensor, other in zip((q, k), turned, strict=True))

    return SimpleNamespace(LigerRMSNorm=LigerRMSNorm, LigerSwiGLUMLP=LigerSwiGLUMLP, liger_rotary_pos_emb=rotary), used


@pytest.mark.parametrize("adapted_first", [True, False])
def test_fused_layers_take_over_one_decoder_with_its_weights(adapted_first):
    plain, other, model = pocket()[1], pocket()[1], pocket()[1]
    liger, used = stand_in()
    given = dict(plain.named_parameters())
    for step in (lambda: new_adapter(model, 4, 8, 0.0), lambda: fuse(model.model.language_model, liger))[:: 1 if adapted_first else -1]:
        step()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)
        assert used == {"norm": 9, "swiglu": 4, "rotary": 4}
        other(input_ids=ids)
    assert used == {"norm": 9, "swiglu": 4, "rotary": 4}  # another model in this process is as it was
    names = {name.replace(".base_layer", "") for name, _ in model.named_parameters() if "lora_" not in name and "projector" not in name}
    assert names == {name for name in given if "projector" not in name}
    assert not any(tensor.is_meta for tensor in model.parameters())
    model(input_ids=ids).logits.mean().backward()
    assert all((tensor.grad is not None) == ("lora_" in name) for name, tensor in model.named_parameters() if "projector" not in name)


def test_original_names_translate():
    assert native_name("model.vision_encoder.vision_encoder.embeddings.x") == "model.vision_model.embeddings.x"
    assert native_name("model.mm_projector.readout.2.bias") == "model.projector.readout.2.bias"
    assert native_name("model.norm.weight") == "model.language_model.norm.weight"
    assert native_name("lm_head.weight") == "lm_head.weight"


MODELS = SHARED / "reference" / "model"
recorded = pytest.mark.skipif(not MODELS.is_dir(), reason="the recordings of the original are not here")
LAYOUTS = {  # how it is loaded -> what the original gave for it
    "training layout": (("baseline",), "base"),
    "hub layout": (("original_hf_style",), "base"),
    "LoRA checkpoint on the training layout": (("baseline", "lora_checkpoint"), "lora"),
    "LoRA checkpoint on the hub layout": (("original_hf_style", "lora_checkpoint"), "lora"),
    "LoRA checkpoint, its base beside it": (("lora_checkpoint",), "lora"),
    "merged .bin": (("merged",), "lora"),
}


@recorded
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_what_the_original_gives(layout):
    folders, variant = LAYOUTS[layout]
    clip_side, text = np.load(MODELS / "parity_base.npz"), json.loads((MODELS / "parity_text.json").read_text())
    given = np.load(MODELS / f"parity_{variant}.npz")
    base = load_model(*(MODELS / name for name in folders), device="cpu")
    frames, rows, columns = clip_side["grid_sizes"][0].tolist()
    kept = torch.tensor(clip_side["keep_mask"]).view(frames, -1)
    cut = ((torch.tensor(clip_side["pixel_values"]) / 2 + 0.5) * 255).round().to(torch.uint8)
    clip = ClipInput(cut, (frames, rows, columns), kept, clip_side["timestamps"])
    features = encode_frames(base.model, clip)
    if "visual_features" in given:
        visual = base.model.model.projector(features).detach().numpy()
        np.testing.assert_allclose(visual, given["visual_features"][clip_side["keep_mask"]], atol=1e-4)
    prefix = clip_prefix(clip.times_s.tolist(), kept.sum(-1).tolist(), base.tokenizer, base.model.config.video_token_id)
    question, _ = encode_question(text["question"], None, base.tokenizer)
    with torch.no_grad():
        prompt = embed(base.model, torch.cat([prefix, question])[None], features)
        logits = base.model.lm_head(base.model.model.language_model(inputs_embeds=prompt).last_hidden_state[:, -1])
    np.testing.assert_allclose(logits.numpy(), given["prompt_logits_last"], atol=1e-4)
    row = join([pack(prefix, [encode_question(text["question"], text["answer"], base.tokenizer)])], [features])
    losses = token_losses(base.model, row)
    assert losses.mean().item() == pytest.approx(given["train_loss"].item(), abs=1e-4)
    stop = token_id(base.tokenizer, "<|im_end|>")
    limit = len(given["generated"][0])
    branch = Branch(0, question.tolist(), limit)
    list(speak(read_clips(base.model, [prefix], [features]), [branch], Vocabulary(base.tokenizer), stop))
    assert branch.spoken == [token for token in given["generated"][0].tolist() if token != stop]
