"""A backbone to a checkpoint and back.

Enters: a network, or what a checkpoint folder held. Leaves: the other. Does not know files.
"""

from collections.abc import Mapping

import torch

from dynin.checkpoint import Checkpoint, require_fit
from dynin.errors import CheckpointError
from dynin.model.config import ModelConfig
from dynin.model.convert import expected_shapes
from dynin.model.transformer import Transformer
from dynin.vocabulary import Vocabulary


def to_checkpoint(
    model: Transformer,
    *,
    vocabulary: Vocabulary,
    fingerprints: Mapping[str, str],
    provenance: Mapping[str, object],
    dtype: torch.dtype = torch.bfloat16,
) -> Checkpoint:
    """The model's values in the dtype of storage, with what is needed to use them again.

    Args:
        fingerprints: By modality, those of the tokenizers the model was trained with.
        provenance: Code version, data, steps, hardware.
    """
    return Checkpoint(
        kind="backbone",
        config=model.config.to_dict(),
        tensors={name: value.detach().to("cpu", dtype) for name, value in model.state_dict().items()},
        vocabulary=vocabulary,
        fingerprints=fingerprints,
        provenance=provenance,
    )


def from_checkpoint(
    checkpoint: Checkpoint, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Transformer:
    """The model of a checkpoint, in evaluation mode.

    Args:
        device: None keeps the tensors where they are.
        dtype: None keeps the dtype of storage.

    Raises:
        CheckpointError: If it holds no backbone, or config, vocabulary and tensors do not fit together.
    """
    if checkpoint.kind != "backbone":
        raise CheckpointError(f"the checkpoint holds kind {checkpoint.kind!r}, expected 'backbone'; name its folder")
    config = ModelConfig.from_dict(checkpoint.config)
    if checkpoint.vocabulary is not None and checkpoint.vocabulary.size != config.num_rows:
        raise CheckpointError(
            f"the vocabulary has {checkpoint.vocabulary.size} rows, the model {config.num_rows}; "
            "check that config and weights belong together"
        )
    require_fit(expected_shapes(config), checkpoint.tensors)
    with torch.device("meta"):
        model = Transformer(config)
    tensors = {name: value.to(device=device, dtype=dtype) for name, value in checkpoint.tensors.items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval()
