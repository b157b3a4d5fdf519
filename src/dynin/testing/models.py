"""Tiny models with random weights, which go through exactly the code of trained ones.

Enters: a folder, a seed. Leaves: a model, or a model folder of a few hundred kilobytes. Does not know how anything is
trained.
"""

import json
import math
from pathlib import Path

import torch

from dynin.model import publish
from dynin.model.config import ModelConfig
from dynin.model.family import FAMILIES
from dynin.model.transformer import Transformer, initialise
from dynin.pipeline import folder as folders
from dynin.pipeline.dynin import Dynin
from dynin.tokenizers.bundle import Tokenizers
from dynin.tokenizers.small.image import SmallImageConfig, SmallImageTokenizer
from dynin.tokenizers.small.speech import SmallSpeechTokenizer, SpeechCodecConfig
from dynin.tokenizers.text import ByteLevelText
from dynin.tokenizers.video import VideoTokenizer
from dynin.vocabulary import Vocabulary, embedded

WORDS = [
    "a dog left of a red apple on a blue background",
    "what is in the picture?",
    "three stars <think>3 + 4 = 7.</think>7",
]


def tiny(seed: int = 0) -> Dynin:
    """A model with random weights: two layers of width 32, 300 text ids, 64 picture codes, 120 speech codes."""
    generator = torch.Generator().manual_seed(seed)
    image = SmallImageTokenizer(SmallImageConfig(num_bits=6, hidden_dim=16))
    speech = SmallSpeechTokenizer(
        SpeechCodecConfig(
            styles=("slt",),
            default_style="slt",
            levels=(8, 5, 3),
            encoder_dim=16,
            encoder_layers=1,
            decoder_dim=16,
            decoder_layers=1,
            frame_dim=16,
            frame_layers=1,
            style_dim=4,
        )
    )
    _draw(image, generator)
    _draw(speech, generator)
    with torch.no_grad():
        image.tiles.uniform_(-1, 1, generator=generator)
        image.tiles[:, 3] = 1.0
    text = ByteLevelText.train(WORDS * 4, size=300)
    vocabulary = embedded(text_size=300, image_codes=64, speech_codes=120)
    config = ModelConfig(
        d_model=32, num_heads=2, num_kv_heads=2, num_layers=2, mlp_dim=64, num_rows=vocabulary.size, max_len=512
    )
    model = Transformer(config)
    initialise(model, generator)
    tokenizers = Tokenizers(text=text, image=image.eval(), video=VideoTokenizer(image=image), speech=speech.eval())
    return Dynin.assemble(model, tokenizers, vocabulary)


def tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write the tiny model into a folder; returns the folder."""
    folders.save(folder, tiny(seed), dtype=torch.float32, provenance={"data": "none, weights are random"})
    return folder


def tiny_published(
    folder: Path, family: str = "published", *, text_len: int = 126_349, max_shard_bytes: int = 8 * 2**20
) -> Path:
    """Write a model with random weights in the published layout: all its rows, but 16 wide; returns the folder.

    Args:
        family: published, mmada or llada.
        text_len: Number of ids below the first image code.
    """
    kind = FAMILIES[family]
    layout = kind.layout(text_len)
    config = ModelConfig(
        d_model=16, num_heads=2, num_kv_heads=2, num_layers=2, mlp_dim=32, num_rows=layout.size, max_len=4096
    )
    model = Transformer(config)
    initialise(model, torch.Generator().manual_seed(0))
    text = published_text(layout, text_len)
    publish.save(folder, model, layout, text, dtype=torch.bfloat16, max_shard_bytes=max_shard_bytes)
    return folder


def published_text(layout: Vocabulary, text_len: int) -> str:
    """A `tokenizer.json` of few words that names its control ids where the published ones have them."""
    values = json.loads(ByteLevelText.train(WORDS * 4, size=300).to_json())
    names = {
        "<|startoftext|>": layout["bos"],
        "<|endoftext|>": layout["eos"],
        "<|mdm_mask|>": layout["mask"],
        "<|start_header_id|>": layout["start_header"],
        "<|end_header_id|>": layout["end_header"],
        "<|eot_id|>": layout["eot"],
    }
    if text_len - 1 not in names.values():
        names["<|last|>"] = text_len - 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    values["added_tokens"] = [{"id": number, "content": name, **flags} for name, number in names.items()]
    return json.dumps(values)


def _draw(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Fill every matrix of a network with random numbers of the usual size."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0.0, 1.0 / math.sqrt(fan_in), generator=generator)
