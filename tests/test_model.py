import errno
import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from pocket import SHARED, WORDS, pocket, saved_pocket
from safetensors.torch import load_file, save_file

from crashchat.core import CrashchatError, whole_folder
from crashchat.features import encode_frames
from crashchat.infer import answer_together
from crashchat.model import (
    AdapterCard,
    ModelCard,
    add_adapter,
    attend,
    attention_for,
    base_key,
    load_model,
    native_name,
    new_adapter,
    read_card,
    save_adapter,
    token_id,
    train_tokenizer,
)
from crashchat.packing import collate, embed, pack, token_losses
from crashchat.preprocess import ClipInput, clip_prefix, encode_question


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
    assert attention_for("cuda", packed=True)["text_config"] == "sdpa"


def test_attention_on_a_cpu_is_computed_in_float32_under_autocast():
    query, key, value = torch.randn(3, 2, 3, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = attend(torch.nn.Module(), query, key, value, mask, scaling=0.5)
    scores = (query.float() @ key.float().transpose(-1, -2) * 0.5).masked_fill(~mask, -torch.inf)
    exact = (scores.softmax(-1) @ value.float()).transpose(1, 2)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), exact, rtol=2**-8, atol=1e-6)  # nothing lost but the rounding of the result


def tuned_pocket(tmp_path):
    "An adapter with random weights, on disk and in memory."
    _, model = pocket()
    key = base_key(model)
    tuned = new_adapter(model, rank=4, alpha=8, dropout=0.0)
    torch.manual_seed(1)
    for tensor in tuned.parameters():
        if tensor.requires_grad:
            torch.nn.init.normal_(tensor, std=0.1)
    card = AdapterCard("mine", "heterogeneous_multitask", "pocket", key, "crashchat", {"crash_recognition": "Crash?"})
    save_adapter(tmp_path / "adapter", tuned, card)
    return tuned.eval(), card


def test_an_adapter_survives_saving_and_peft_alone_can_load_it(tmp_path):
    tuned, card = tuned_pocket(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    features = torch.randn(12, 96)
    ours, theirs = pocket()[1], pocket()[1]
    assert add_adapter(ours, tmp_path / "adapter") == card
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
    clip = ClipInput(torch.tensor(clip_side["pixel_values"]), (frames, rows, columns), kept, clip_side["timestamps"])
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
    losses, _ = token_losses(base.model, collate([pack(prefix, [encode_question(text["question"], text["answer"], base.tokenizer)])], [features], 0))
    assert losses.mean().item() == pytest.approx(given["train_loss"].item(), abs=1e-4)
    stop = token_id(base.tokenizer, "<|im_end|>")
    limit = len(given["generated"][0])
    spoken = answer_together(base.model, prefix, features, [question], [limit], stop, token_id(base.tokenizer, "<|endoftext|>"))[0]
    assert spoken == [token for token in given["generated"][0].tolist() if token != stop]
