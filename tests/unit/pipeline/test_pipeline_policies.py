import pytest

from dynin.decoding.policy import DecodingPolicy
from dynin.pipeline.policies import POLICIES, adjust, for_redo, limit, policy_of
from dynin.sequence.task import TABLES
from dynin.types import Modality

GROWING = DecodingPolicy(num_steps=128, block_len=16, max_len=128)


def test_every_target_of_every_layout_has_a_policy():
    assert set(POLICIES) == set(TABLES)
    for name, table in TABLES.items():
        for task in table.values():
            assert all(policy_of(POLICIES[name], task.name, modality) for modality in task.targets)


def test_a_task_s_own_policy_comes_before_the_modality_s():
    table = POLICIES["published"]
    assert policy_of(table, "i2i", Modality.IMAGE).num_steps == 64
    assert policy_of(table, "t2i", Modality.IMAGE).num_steps == 20


def test_steps_of_a_growing_canvas_count_for_each_block():
    assert adjust(GROWING, steps=5, guidance=None).block_steps(128) == 5


def test_guidance_replaces_the_policy_s_own():
    assert adjust(GROWING, steps=None, guidance=1.5).guidance_scale == 1.5


def test_a_redo_takes_the_steps_of_one_block_for_a_canvas_that_stays():
    policy = for_redo(GROWING)
    assert (policy.num_steps, policy.block_len, policy.max_len) == (16, None, None)


@pytest.mark.parametrize(("room", "longest"), [(200, 128), (70, 64), (16, 16)])
def test_growth_is_cut_to_whole_blocks_with_the_same_steps_for_each(room, longest):
    policy = limit(GROWING, room)
    assert policy.max_len == longest
    assert policy.block_steps(longest) == 16
