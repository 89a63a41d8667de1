"Models and adapters written the way the original implementation writes its own, in each of its layouts."

import json

import torch
from pocket import pocket
from safetensors.torch import save_file

NAMES = {"model.vision_model.": "model.vision_encoder.", "model.projector.": "model.mm_projector.", "model.language_model.": "model."}


def original_weights(model, training=False):
    "Weights under the original names; the training layout puts one more level before the vision encoder's."
    names = {**NAMES, **({"model.vision_model.": "model.vision_encoder.vision_encoder."} if training else {})}
    tied = model.config.tie_word_embeddings
    found = {}
    for name, tensor in model.state_dict().items():
        if not (tied and name == "lm_head.weight"):
            old = next((part for part in names if name.startswith(part)), "")
            found[names.get(old, "") + name.removeprefix(old)] = tensor.detach().clone()
    return found


def original_config(model, **more):
    "The configuration that lies beside them."
    text = model.config.text_config.to_dict()
    rope = {"rope_theta": text.pop("rope_parameters")["rope_theta"], "rope_scaling": None}
    return {**text, **rope, "model_type": "videollama3_qwen2", "torch_dtype": "float32", "use_token_compression": True,
            "tie_word_embeddings": model.config.tie_word_embeddings, "image_token_index": model.config.video_token_id, **more}


def write_config(folder, held, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(held))
    tokenizer.save_pretrained(folder)


def write_hub(folder, model, tokenizer, shards=1):
    "The hub layout: vision settings in the configuration, any number of safetensors."
    write_config(folder, original_config(model, vision_encoder_config=model.config.vision_config.to_dict()), tokenizer)
    weights = original_weights(model)
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return folder
    places = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(list(weights.items())[number::shards])
        save_file(part, folder / name)
        places |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def write_training(folder, model, tokenizer, apart=True):
    "The training layout: the vision encoder in a folder beside, with its weights (`apart`) or its configuration alone."
    write_config(folder, original_config(model, vision_encoder="../vision_navit"), tokenizer)
    weights = original_weights(model, training=True)
    level = "model.vision_encoder.vision_encoder."
    vision = {name.removeprefix(level): tensor for name, tensor in weights.items() if name.startswith(level)}
    beside = folder.parent / "vision_navit"
    beside.mkdir(exist_ok=True)
    (beside / "config.json").write_text(json.dumps(model.config.vision_config.to_dict()))
    if apart:
        save_file(vision, beside / "model.safetensors")
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(level)}
    save_file(weights, folder / "model.safetensors")
    return folder


def write_merged(folder, model, tokenizer):
    "One pickled file of tensors."
    write_training(folder, model, tokenizer, apart=False)
    (folder / "model.safetensors").unlink()
    torch.save(original_weights(model, training=True), folder / "pytorch_model.bin")
    return folder


def adapter_weights(model, rank=4, seed=0):
    "LoRA for the language model's seven kinds of layer and the vision encoder's three that have the same names; a projector."
    random = torch.Generator().manual_seed(seed)
    lora = {}
    for name, module in model.named_modules():
        kind = name.rpartition(".")[2]
        if isinstance(module, torch.nn.Linear) and kind in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
            theirs = name.replace("model.language_model.", "model.").replace("model.vision_model.", "model.vision_encoder.vision_encoder.")
            lora[f"base_model.model.{theirs}.lora_A.weight"] = torch.randn(rank, module.in_features, generator=random) / 8
            lora[f"base_model.model.{theirs}.lora_B.weight"] = torch.randn(module.out_features, rank, generator=random) / 8
    projector = {f"base_model.model.model.mm_projector.{name}": tensor.detach() + torch.randn(tensor.shape, generator=random) / 20
                 for name, tensor in model.model.projector.state_dict().items()}
    return lora, projector


def write_lora(folder, model, tokenizer, pickled=False, **settings):
    "A LoRA checkpoint: adapter weights, and the projector in a file of its own."
    write_config(folder, original_config(model, vision_encoder="../vision_navit"), tokenizer)
    lora, projector = adapter_weights(model)
    if pickled:
        torch.save(lora, folder / "adapter_model.bin")
    else:
        save_file(lora, folder / "adapter_model.safetensors")
    torch.save(projector, folder / "non_lora_trainables.bin")
    held = {"peft_type": "LORA", "r": 4, "lora_alpha": 2, "lora_dropout": 0.05, "bias": "none", "base_model_name_or_path": "",
            "target_modules": ["gate_proj", "v_proj", "q_proj", "k_proj", "o_proj", "up_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps({**held, **settings}))
    return folder


def by_hand(model, scale=0.5):
    "The model with the adapter folded in by arithmetic: W + scale B A, and the adapter's projector."
    lora, projector = adapter_weights(model)
    with torch.no_grad():
        for name, module in model.named_modules():
            theirs = name.replace("model.language_model.", "model.").replace("model.vision_model.", "model.vision_encoder.vision_encoder.")
            key = f"base_model.model.{theirs}.lora_"
            if f"{key}A.weight" in lora:
                module.weight += scale * lora[f"{key}B.weight"] @ lora[f"{key}A.weight"]
        for name, tensor in model.model.projector.state_dict().items():
            tensor.copy_(projector[f"base_model.model.model.mm_projector.{name}"])
    return model


def untied_pocket(seed=0):
    "Tokenizer and a pocket model whose output layer is not its embedding."
    tokenizer, model = pocket(seed)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    table = model.lm_head.weight.detach().clone()
    model.lm_head.weight = torch.nn.Parameter(table.flip(0))
    return tokenizer, model


