"""The networks that are taken from the library `transformers`, imported when a tokenizer is built.

Enters: sizes. Leaves: modules with weights that mean nothing yet. The only file that imports the library; does not know
published names, features or codes.
"""

from types import ModuleType
from typing import Any

from torch import nn

from dynin.errors import RequestError
from dynin.optional import import_quietly
from dynin.tokenizers.emova.config import EncoderSizes, TransformerSizes, VocoderSizes

OUTPUT_RATE_HZ = 22050


def transformer(dim: int, sizes: TransformerSizes, encoder: EncoderSizes) -> nn.Module:
    """A transformer over time that is told positions by a convolution; norms stand before the layers.

    Called with the hidden states (B, T, D) and a boolean mask (B, T) of what is inside: it inverts the mask bit by bit,
    so that an integer one would hide the wrong places.

    Raises:
        RequestError: If the library is missing.
    """
    wav2vec2 = _module("models.wav2vec2.modeling_wav2vec2")
    config = _module("models.wav2vec2.configuration_wav2vec2").Wav2Vec2Config(
        hidden_size=dim,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        intermediate_size=sizes.mlp_dim,
        num_conv_pos_embeddings=encoder.position_kernel,
        num_conv_pos_embedding_groups=encoder.position_groups,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        layerdrop=0.0,
        attn_implementation="sdpa",
    )
    return wav2vec2.Wav2Vec2EncoderStableLayerNorm(config)


def vits(sizes: VocoderSizes, num_symbols: int) -> Any:
    """The parts of a `VitsModel` over so many symbols, none of which drops anything out; error as in `transformer`."""
    config = _module("models.vits.configuration_vits").VitsConfig(
        vocab_size=num_symbols,
        hidden_size=sizes.dim,
        flow_size=sizes.dim,
        duration_predictor_filter_channels=sizes.dim,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        ffn_dim=sizes.mlp_dim,
        speaker_embedding_size=sizes.style_dim,
        spectrogram_bins=sizes.num_spectrum_bins,
        upsample_initial_channel=sizes.upsample_dim,
        upsample_rates=sizes.upsample_rates,
        upsample_kernel_sizes=sizes.upsample_kernels,
        resblock_kernel_sizes=sizes.block_kernels,
        resblock_dilation_sizes=[sizes.block_dilations] * len(sizes.block_kernels),
        sampling_rate=OUTPUT_RATE_HZ,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        duration_predictor_dropout=0.0,
        layerdrop=0.0,
    )
    model = _module("models.vits.modeling_vits").VitsModel(config)
    model.decoder.apply_weight_norm()  # as published; without it lengths and directions could not be told apart again
    return model


def _module(name: str) -> ModuleType:
    try:
        return import_quietly(f"transformers.{name}")
    except ImportError as error:
        raise RequestError(
            "the published speech tokenizer needs the package transformers, which is missing or older than 5.17; "
            "run: pip install 'dynin[published]'"
        ) from error
