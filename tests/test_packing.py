import pytest
import torch
from pocket import noise_clip, pocket

from crashchat.model import new_adapter
from crashchat.packing import attention_mask, collate, mean_by_question, pack, token_losses
from crashchat.preprocess import encode_question

ANSWERS = [("Was there a crash?", "Yes"), ("When did it happen?", "1.9 - 4.0 seconds"), ("What happened?", "car hits truck")]


def tensors(*rows):
    return [torch.tensor(row) for row in rows]


def test_two_hand_made_examples_written_out():
    prefix_a, prefix_b = tensors([1, 9, 9], [1, 9])
    one, two = tuple(tensors([2, 3], [-100, 3])), tuple(tensors([4, 5, 6], [-100, 5, 6]))
    batch = collate([pack(prefix_a, [one, two]), pack(prefix_b, [two])], [torch.ones(2, 4), torch.zeros(1, 4)], pad_id=0)
    assert batch["input_ids"].tolist() == [[1, 9, 9, 2, 3, 4, 5, 6], [1, 9, 4, 5, 6, 0, 0, 0]]
    assert batch["labels"].tolist() == [
        [-100, -100, -100, -100, 3, -100, 5, 6],
        [-100, -100, -100, 5, 6, -100, -100, -100],
    ]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 3, 4, 5], [0, 1, 2, 3, 4, 0, 0, 0]]
    assert batch["segments"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, -1, -1, -1]]
    assert batch["features"].shape == (3, 4)


def test_a_question_sees_the_clip_and_itself_only():
    mask = attention_mask(torch.tensor([[0, 0, 1, 1, 2, -1]]))[0, 0]
    seen = [[column for column in range(6) if mask[row, column]] for row in range(6)]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [0, 1, 5]]


def gradients(tuned, batches):
    tuned.zero_grad()
    total = sum(token_losses(tuned, batch)[0].sum() for batch in batches)
    total.backward()
    return total.item(), {name: p.grad.clone() for name, p in tuned.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0], [1]])
def test_packed_equals_separate_in_loss_and_every_gradient(order):
    tokenizer, model = pocket()
    tuned = new_adapter(model, rank=4, alpha=8, dropout=0.0)
    torch.manual_seed(0)
    for name, tensor in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.05)
    clips = [noise_clip(tokenizer, model, frames=n, seed=n) for n in (3, 2)]
    asked = [encode_question(*ANSWERS[index], tokenizer) for index in order]
    together = [collate([pack(prefix, asked) for prefix, _ in clips], [f for _, f in clips], 0)]
    separate = [collate([pack(prefix, [question])], [f], 0) for prefix, f in clips for question in asked]
    loss, packed = gradients(tuned, together)
    alone, summed = gradients(tuned, separate)
    assert loss == pytest.approx(alone, rel=1e-5)
    assert packed.keys() == summed.keys() and len(packed) > 50
    for name in packed:
        error = (packed[name] - summed[name]).abs().max() / summed[name].abs().max().clamp(min=1e-8)
        assert error < 1e-4, name


def test_the_mean_over_questions_gives_each_the_same_say():
    losses, questions = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([4, 4, 7])
    assert mean_by_question(losses, questions).item() == pytest.approx((2.0 + 8.0) / 2)


def test_losses_are_numbered_by_question_over_the_batch():
    tokenizer, model = pocket()
    prefix, features = noise_clip(tokenizer, model)
    packed = pack(prefix, [encode_question(*pair, tokenizer) for pair in ANSWERS])
    losses, questions = token_losses(model, collate([packed, packed], [features, features], 0))
    assert len(questions.unique()) == 6
    torch.testing.assert_close(losses[: len(losses) // 2], losses[len(losses) // 2 :])
