"""A CLIP with drawn weights says the same of the same frames, and is read strictly."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from dynin.errors import CheckpointError, RequestError
from dynin.virst import similarity

transformers = pytest.importorskip("transformers")

WORDS = {"<s>": 0, "</s>": 1, "the": 2, "dog": 3, "cat": 4}
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    place = tmp_path_factory.mktemp("clip")
    config = transformers.CLIPConfig(
        text_config={**SIZES, "vocab_size": 5, "max_position_embeddings": 6, "eos_token_id": 1, "bos_token_id": 0},
        vision_config={**SIZES, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    with torch.random.fork_rng():
        transformers.CLIPModel(config).save_pretrained(place)
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="the"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 1)])
    tokenizer.save(str(place / "tokenizer.json"))
    return place


def frames(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 40, 64, generator=generator) * 2 - 1 for _ in range(count)]


def test_likeness_is_a_cosine_and_equals_that_of_the_library(home) -> None:
    compare = similarity.load(home)
    found = compare(frames(3), "the dog")
    assert len(found) == 3
    assert all(-1 <= value <= 1 for value in found)
    assert found == pytest.approx([compare([frame], "the dog")[0] for frame in frames(3)], abs=1e-5)
    assert found != pytest.approx(compare(frames(3), "the cat"), abs=1e-6)
    pixels = torch.stack([similarity.fitted(frame, 32) for frame in frames(3)]) * 0.5 + 0.5
    mean, std = (torch.tensor(values)[:, None, None] for values in (similarity.MEAN, similarity.STD))
    with torch.no_grad():
        logits = compare.network(
            input_ids=torch.tensor([[0, 2, 3, 1]]), pixel_values=(pixels - mean) / std
        ).logits_per_image[:, 0]
    assert (logits / compare.network.logit_scale.exp()).tolist() == pytest.approx(found, abs=1e-5)


def test_a_long_sentence_is_cut_and_an_empty_one_refused(home) -> None:
    compare = similarity.load(home)
    assert len(compare(frames(1), "the dog " * 50)) == 1
    with pytest.raises(RequestError, match="1 frames were to be compared with the sentence ' '"):
        compare(frames(1), " ")


def test_a_folder_without_words_or_with_another_model_is_refused(home, tmp_path) -> None:
    for path in home.iterdir():
        if path.name != "tokenizer.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: missing; sentences cannot be read without it"):
        similarity.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="the model type is bert, expected one of clip"):
        similarity.load(tmp_path)
