import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pocket import noise_clip, pocket
from torch.nn.attention.flex_attention import flex_attention

from crashchat.model import new_adapter
from crashchat.packing import (
    BLOCK,
    Size,
    Visit,
    ask_all,
    attend_row,
    block_mask,
    block_table,
    cut_steps,
    deal,
    fill_rows,
    join,
    pack,
    plan,
    stretches,
    token_losses,
    tokens_of,
    who_sees_whom,
)
from crashchat.preprocess import encode_question
from crashchat.tasks import ALL

ANSWERS = [("Was there a crash?", "Yes"), ("When did it happen?", "1.9 - 4.0 seconds"), ("What happened?", "car hits truck"),
           ("From when?", "1.9 seconds"), ("Why?", "car hits truck car hits truck"), ("How else?", "truck hits car")]


def tensors(*rows):
    return [torch.tensor(row) for row in rows]


# --- rows


def test_two_hand_made_examples_written_out():
    prefix_a, prefix_b = tensors([1, 9, 9], [1, 9])
    one, two = tuple(tensors([2, 3], [-100, 3])), tuple(tensors([4, 5, 6], [-100, 5, 6]))
    row = join([pack(prefix_a, [one, two], [2.0, 1.0]), pack(prefix_b, [two])], [torch.ones(2, 4), torch.zeros(1, 4)])
    assert row.input_ids.tolist() == [[1, 9, 9, 2, 3, 4, 5, 6, 1, 9, 4, 5, 6]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2, 3, 4]]
    assert row.before.tolist() == [3, 5, 6, 10, 11] and row.targets.tolist() == [3, 5, 6, 5, 6]
    assert row.weights.tolist() == [2, 1, 1, 1, 1] and row.question.tolist() == [0, 1, 1, 2, 2]
    assert row.clips == ((3, (2, 3)), (2, (3,))) and row.features.shape == (3, 4)


def test_averaged_over_questions_each_has_the_same_say():
    one, two = tuple(tensors([2, 3], [-100, 3])), tuple(tensors([4, 5, 6], [-100, 5, 6]))
    assert pack(torch.tensor([1]), [one, two], average="questions").weights.tolist() == [0, 0, 1, 0, 0.5, 0.5]
    assert pack(torch.tensor([1]), [one, two], [1.0, 3.0], "questions").weights.tolist() == [0, 0, 1, 0, 1.5, 1.5]


def test_an_answer_that_begins_its_question_is_learnt_from_the_clips_last_token():
    row = join([pack(torch.tensor([1, 9]), [tuple(tensors([5, 6], [5, 6]))])], [torch.ones(1, 4)])
    assert (row.before.tolist(), row.targets.tolist(), row.question.tolist()) == ([1, 2], [5, 6], [0, 0])


# --- who sees whom


def seen_by_definition(clips):
    "bool [L,L], written down token by token."
    place = [(clip, 0) for clip, (prefix, _) in enumerate(clips) for _ in range(0)]
    for clip, (prefix, questions) in enumerate(clips):
        place += [(clip, 0)] * prefix
        place += [(clip, number) for number, size in enumerate(questions, 1) for _ in range(size)]
    return torch.tensor([[j <= i and a[0] == b[0] and b[1] in (0, a[1]) for j, b in enumerate(place)] for i, a in enumerate(place)])


layouts = st.lists(st.tuples(st.integers(1, 300), st.lists(st.integers(1, 150), max_size=4).map(tuple)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(layouts)
def test_the_blocks_leave_out_nothing_that_is_seen_and_let_through_nothing_that_is_not(clips):
    clip, part, some, full = block_table(clips)
    dense = seen_by_definition(clips)
    assert len(clip) == len(part) == len(dense)
    filled = torch.nn.functional.pad(dense, [0, -len(dense) % BLOCK] * 2).view(len(some), BLOCK, len(some), BLOCK)
    assert not (some & full).any() and not (filled.any(3).any(1) & ~(some | full)).any()
    real = torch.nn.functional.pad(dense, [0, -len(dense) % BLOCK] * 2, value=True)  # behind the end nobody asks
    real[len(dense):], real[:, len(dense):] = True, True
    assert not (full & ~real.view_as(filled).all(3).all(1)).any()


@pytest.mark.parametrize("clips", [((5, (3, 2)), (4, (1,))), ((1, ()), (2, (2,)), (130, (5, 140)))])
def test_both_attentions_are_the_one_that_is_written_down(clips):
    dense = seen_by_definition(clips)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, len(dense), 16, requires_grad=True) for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 2, True
    by_hand = attend_row(module, query, key, value, dense[None, None], scaling=0.25)[0]
    by_clip = attend_row(module, query, key, value, who_sees_whom(clips, "cpu"), scaling=0.25)[0]
    plain = [tensor.detach() for tensor in (query, key, value)]  # FlexAttention has no gradient on a CPU
    by_block = flex_attention(*plain, block_mask=block_mask(clips, "cpu"), scale=0.25, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(by_clip, by_hand)
    torch.testing.assert_close(by_block, by_hand)
    cotangent = torch.randn_like(by_hand)
    by_definition, split = (torch.autograd.grad((mixed * cotangent).sum(), (query, key, value)) for mixed in (by_hand, by_clip))
    torch.testing.assert_close(split, by_definition)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_compiled_kernel_goes_by_the_blocks():
    "Uncompiled, FlexAttention asks for every pair; the kernel asks only in blocks seen in part, and on a CPU it runs forwards."
    clips = ((300, (40, 30, 100)), (10, (5,)), (400, (20, 60)), (128, (128, 128)))
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 1349, 32) for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 2, True
    with torch.no_grad():
        by_clip, by_block = (attend_row(module, query, key, value, sight, scaling=0.25)[0] for sight in (stretches(clips, "cpu"), block_mask(clips, "cpu")))
    torch.testing.assert_close(by_block, by_clip)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_on_a_gpu_loss_and_gradients_are_those_of_a_cpu(checkpointing):
    tokenizer, model, tuned = tuned_pocket()
    clips = [noise_clip(tokenizer, model, frames=n, seed=n) for n in (24, 9)]
    row = join([pack(prefix, [encode_question(*pair, tokenizer) for pair in ANSWERS]) for prefix, _ in clips], [f for _, f in clips])
    loss, wanted = gradients(tuned, [row])
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    there, got = gradients(tuned.cuda(), [row.to("cuda")])
    assert there == pytest.approx(loss, rel=1e-4)
    for name in wanted:
        assert (got[name].cpu() - wanted[name]).abs().max() <= 1e-3 * wanted[name].abs().max(), name


def test_no_mask_is_larger_than_a_clips_questions_against_the_clip():
    masks = [stretch.mask for stretch in stretches([(10_000, (40, 60)), (9_000, (50,))], "cpu")]
    assert [tuple(mask.shape[2:]) for mask in masks] == [(100, 10_100), (50, 9_050)]


# --- exactness


def tuned_pocket():
    tokenizer, model = pocket()
    tuned = new_adapter(model, rank=4, alpha=8, dropout=0.0)
    torch.manual_seed(0)
    for name, tensor in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.05)
    return tokenizer, model, tuned


def gradients(tuned, rows):
    tuned.zero_grad()
    total = sum((token_losses(tuned, row) * row.weights).sum() for row in rows)
    total.backward()
    return total.item(), {name: p.grad.clone() for name, p in tuned.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 0, 3], [1]])
def test_packed_equals_separate_in_loss_and_every_gradient(order, compress, checkpointing):
    tokenizer, model, tuned = tuned_pocket()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    clips = [noise_clip(tokenizer, model, frames=n, seed=n, compress=compress) for n in (3, 2)]
    assert [len(features) for _, features in clips] == ([12, 9] if compress else [18, 12])
    asked = [encode_question(*ANSWERS[index], tokenizer) for index in order]
    loss, packed = gradients(tuned, [join([pack(prefix, asked) for prefix, _ in clips], [f for _, f in clips])])
    alone, summed = gradients(tuned, [join([pack(prefix, [question])], [f]) for prefix, f in clips for question in asked])
    assert loss == pytest.approx(alone, rel=1e-5)
    assert packed.keys() == summed.keys() and len(packed) > 50
    worst = {name: ((packed[name] - summed[name]).abs().max() / summed[name].abs().max().clamp(min=1e-12)).item() for name in packed}
    assert max(worst.values()) < 1e-5, max(worst, key=lambda name: worst[name])


def test_a_question_alone_is_what_transformers_makes_of_it():
    tokenizer, model, tuned = tuned_pocket()
    prefix, features = noise_clip(tokenizer, model)
    ids, labels = encode_question(*ANSWERS[1], tokenizer)
    row = join([pack(prefix, [(ids, labels)])], [features])
    ours = token_losses(tuned, row).mean()
    inner = model.model
    embedded = inner.language_model.embed_tokens(row.input_ids)
    embedded[0, row.input_ids[0] == model.config.video_token_id] = inner.projector(features)
    theirs = model(inputs_embeds=embedded, labels=torch.cat([torch.full_like(prefix, -100), labels])[None]).loss
    torch.testing.assert_close(ours, theirs)


# --- the plan


def sizes(count, tasks=ALL):
    return [Size(50 + 7 * (index * index % 11), {task: 10 + len(task) for task in tasks[: 1 + index % len(tasks)]}) for index in range(count)]


@given(st.integers(1, 30), st.integers(1, 40), st.integers(60, 900), st.integers(1, 4), st.integers(0, 5))
def test_every_question_is_asked_once_an_epoch_whoever_asks_it(count, questions, budget, processes, seed):
    clips = sizes(count)
    steps = plan(clips, questions, budget, epochs=2, seed=seed, processes=processes)
    asked = [(visit.clip, task) for step in steps for mine in step for row in mine for visit in row if visit.counts for task in visit.tasks]
    assert sorted(asked) == sorted(2 * [(index, task) for index, size in enumerate(clips) for task in size.questions])
    alone = plan(clips, questions, budget, epochs=2, seed=seed)
    for many, one in zip(steps, alone, strict=True):
        assert {v for mine in many for row in mine for v in row if v.counts} == {v for row in one[0] for v in row}
        assert len({len(mine) for mine in many}) == 1, "processes wait for each other row by row"
        for row in (row for mine in many for row in mine):
            assert len(row) == 1 or sum(tokens_of(visit, clips) for visit in row) <= budget


def test_steps_are_as_close_to_the_recipe_as_whole_clips_allow():
    visits = [Visit(index, ALL[:count]) for index, count in enumerate([6, 6, 6, 6, 6, 6, 5, 5, 6, 1])]
    assert [sum(len(v.tasks) for v in step) for step in cut_steps(visits, 24)] == [24, 22, 7]
    assert [len(step) for step in cut_steps(visits[:3], 1)] == [1, 1, 1]
    assert list(cut_steps([], 24)) == []


def test_another_epoch_is_another_order_and_the_same_seed_the_same():
    clips = sizes(20)
    assert ask_all(clips, {}, 0, 0) == ask_all(clips, {}, 0, 0)
    assert ask_all(clips, {}, 0, 0) != ask_all(clips, {}, 0, 1) != ask_all(clips, {}, 1, 1)


def test_a_share_leaves_out_questions_anew_in_each_epoch():
    clips = [Size(50, {"crash_recognition": 9, "crash_localization": 9})] * 400
    epochs = [ask_all(clips, {"crash_localization": 0.25}, 0, epoch) for epoch in range(2)]
    chosen = [{visit.clip for visit in visits if "crash_localization" in visit.tasks} for visits in epochs]
    assert all(80 < len(some) < 120 for some in chosen) and chosen[0] != chosen[1]
    assert all(sum("crash_recognition" in visit.tasks for visit in visits) == 400 for visits in epochs)


def test_a_share_of_the_only_task_leaves_clips_out_altogether():
    visits = ask_all([Size(50, {"crash_recognition": 9})] * 100, {"crash_recognition": 0.5}, 0, 0)
    assert 35 < len(visits) < 65 and all(visit.tasks for visit in visits)


def test_a_number_of_steps_goes_past_the_epochs():
    assert len(plan(sizes(3), 6, 500, epochs=1, max_steps=9)) == 9
    assert len(plan(sizes(30), 6, 500, epochs=5, max_steps=2)) == 2


def test_a_clip_longer_than_the_budget_is_a_row_of_its_own():
    clips = [Size(900, {"crash_recognition": 10}), Size(40, {"crash_recognition": 10}), Size(40, {"crash_recognition": 10})]
    visits = [Visit(index, ("crash_recognition",)) for index in range(3)]
    assert [[visit.clip for visit in row] for row in fill_rows(visits, clips, 100)] == [[0], [1, 2]]


def test_a_process_without_a_clip_repeats_one_that_weighs_nothing():
    ((mine,), (idle,)) = deal([Visit(0, ("crash_recognition",))], sizes(1), 500, 2)
    assert mine[0].counts and idle == (Visit(0, ("crash_recognition",), counts=False),)
