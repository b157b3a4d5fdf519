"""Prompts of many lengths, decoded together in the step engine, equal the published sampler's answer to each alone.

The network is drawn, its vocabulary small enough that the mask id is predicted now and then, which the published
sampler allows. Tokens must be equal: at these sizes no two candidates are nearer than float32 tells apart.
"""

import pytest
import torch

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.engine import Engine, EngineJob, Limits
from dynin.decoding.policy import published_text
from dynin.model.config import ModelConfig
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline.mixed import MixedDenoiser
from dynin.testing.oracle import PublishedNetwork
from dynin.testing.oracle_text import TextSettings, decode_text

MASK = 30
LENGTHS = (1, 2, 5, 5, 9, 14, 14, 14, 21)
RUNS = {"one block": (12, 12, 12, 0.0), "blocks": (12, 6, 4, 0.0), "guided": (8, 8, 4, 1.5)}


@pytest.fixture(scope="module")
def model() -> Transformer:
    config = ModelConfig(d_model=32, num_heads=4, num_kv_heads=4, num_layers=3, mlp_dim=48, num_rows=40, max_len=64)
    network = Transformer(config)
    initialise(network, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("name", list(RUNS))
def test_prompts_of_many_lengths_together_equal_the_published_sampler_one_by_one(model, name: str) -> None:
    num_new, num_steps, block_len, scale = RUNS[name]
    policy = published_text(num_new=num_new, num_steps=num_steps, block_len=block_len, guidance_scale=scale)
    generator = torch.Generator().manual_seed(7)
    prompts = [torch.randint(0, MASK, (1, length), generator=generator) for length in LENGTHS]
    engine = Engine(MixedDenoiser(model), MASK, Limits(max_columns=300))
    for prompt in prompts:
        ids = torch.cat([prompt, torch.full((1, num_new), MASK)], dim=1)
        is_target = torch.arange(ids.shape[1])[None] >= prompt.shape[1]
        segment = Segment(name="text", is_target=is_target, allowed_ids=None, policy=policy)
        engine.submit(EngineJob(canvas=Canvas(ids=ids, uncond_ids=torch.full_like(ids, MASK)), segments=[segment]))
    found = {}
    while not engine.is_idle:
        found |= {number: engine.poll(number).decoded for number in engine.step()}
    told = TextSettings(mask_id=MASK, num_new=num_new, num_steps=num_steps, block_len=block_len, guidance_scale=scale)
    for number, prompt in enumerate(prompts):
        expected = decode_text(PublishedNetwork.of(model), prompt, told)
        assert found[number].ids.tolist() == expected.tolist()
