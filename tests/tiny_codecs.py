"""Networks of the package `transformers` with random weights, small enough to be built in a blink."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")

MIMI = {
    "hidden_size": 16,
    "num_filters": 4,
    "codebook_size": 32,
    "codebook_dim": 8,
    "num_quantizers": 4,
    "vector_quantization_hidden_dimension": 8,
    "upsample_groups": 16,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
DAC = {"encoder_hidden_size": 4, "decoder_hidden_size": 32, "n_codebooks": 3, "codebook_size": 32, "codebook_dim": 4}
ENCODEC = {
    "hidden_size": 16,
    "num_filters": 4,
    "codebook_size": 32,
    "target_bandwidths": [0.75, 1.5],
    "num_lstm_layers": 1,
}
XCODEC = {
    "codebook_size": 32,
    "target_bandwidths": [0.5, 1.0],
    "acoustic_model_config": {
        "model_type": "dac",
        "encoder_hidden_size": 4,
        "decoder_hidden_size": 32,
        "hidden_size": 16,
        "downsampling_ratios": [8, 5, 4, 2],
        "upsampling_ratios": [8, 5, 4, 2],
    },
    "semantic_model_config": {
        "model_type": "hubert",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_dim": [8] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    },
}
JANUS = {
    "embed_dim": 4,
    "num_embeddings": 64,
    "latent_channels": 8,
    "base_channels": 32,
    "channel_multiplier": [1, 1],
    "num_res_blocks": 1,
    "num_patches": 4,
    "projection_dim": 16,
    "image_token_embed_dim": 16,
    "num_hidden_layers": 1,
}


def mimi(**changes: object) -> nn.Module:
    return _drawn(lambda: transformers.MimiModel(transformers.MimiConfig(**{**MIMI, **changes})))


def dac(**changes: object) -> nn.Module:
    return _drawn(lambda: transformers.DacModel(transformers.DacConfig(**{**DAC, **changes})))


def encodec(**changes: object) -> nn.Module:
    return _drawn(lambda: transformers.EncodecModel(transformers.EncodecConfig(**{**ENCODEC, **changes})), reach=0.01)


def xcodec(**changes: object) -> nn.Module:
    return _drawn(lambda: transformers.XcodecModel(transformers.XcodecConfig(**{**XCODEC, **changes})))


def janus(**changes: object) -> nn.Module:
    return _drawn(lambda: transformers.JanusVQVAE(transformers.JanusVQVAEConfig(**{**JANUS, **changes})))


def whole_janus() -> nn.Module:
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 2}
    config = transformers.JanusConfig(
        vq_config=JANUS,
        text_config={"model_type": "llama", "num_key_value_heads": 2, "vocab_size": 64, **text},
        vision_config={"mlp_ratio": 1.0, "projection_dim": 16, "depth": 1, **vision},
    )
    return _drawn(lambda: transformers.JanusForConditionalGeneration(config))


def _drawn(build: Callable[[], nn.Module], reach: float = 0.1) -> nn.Module:
    """The network with the library's own random weights, and codebooks about as wide as what is looked up in them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build()
        for name, value in network.state_dict().items():
            if name.endswith(("codebook.embed", "codebook.embed_sum", "codebook.weight")):
                value.normal_(std=reach)
    return network.eval()
