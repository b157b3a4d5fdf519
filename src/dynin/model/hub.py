"""The network as a model of the package `transformers`; imported only by those who want that package.

Enters: a folder in the published layout, through `AutoModelForCausalLM.from_pretrained`. Leaves: `DyninOmniModelLM`,
whose weights have the published names and whose logits are those of `Transformer`, bit for bit (where gradients are
recorded, as they are without `torch.no_grad()`, attention takes another kernel in both). Does not know tasks, media or
decoding, and nothing else of this project knows the contract that this file fulfils.

    DyninOmniModelLM
      .model.transformer.wte, .blocks.N.q_proj, .. , .ff_out    the modules of the network, by their published names
      .network                                                  the network itself, which is what runs; not registered

`import dynin` is enough for the classes by config to know this one (`model.announce`). It costs nothing until they are
imported; for `AutoConfig` alone, which needs no networks, import this file.

Parity:
    `attention_mask` means bidirectional padding of keys. The published class turns causal when the mask has a zero and
    no `attention_bias` is given; there is no such argument here.
"""

import os
import re
import shutil
from errno import EEXIST
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from safetensors import SafetensorError
from torch import Tensor, nn

from dynin.errors import CheckpointError, RequestError
from dynin.model.config import PUBLISHED_8B
from dynin.model.convert import IGNORED_PREFIX, TABLE, published_names
from dynin.model.family import FAMILIES, LAYOUT_KEY
from dynin.model.publish import published_config
from dynin.model.published import CONFIG, config_of
from dynin.model.transformer import Transformer
from dynin.repository import INDEX, SUMS, sync
from dynin.vocabulary import PUBLISHED

try:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutput
    from transformers.utils import cached_file
except ImportError as missing:
    raise RequestError(
        "the model class of transformers needs that package, which is missing or older than 5.17; "
        "run: pip install 'dynin[published]'"
    ) from missing

FAMILY = FAMILIES["published"]
TOKENIZER = "tokenizer.json"
_OUTPUT = "model.transformer.ff_out"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_LAYOUT = (LAYOUT_KEY, "text_len", "architectures", "model_type")
DEFAULTS = {
    key: value for key, value in published_config(PUBLISHED_8B, PUBLISHED, FAMILY).items() if key not in _LAYOUT
}
"""What a config that leaves a key out means: the 8B model."""


class DyninOmniConfig(PreTrainedConfig):
    """A published `config.json`; keys that are left out have the values of the 8B model."""

    model_type = FAMILY.model_types[0]
    attribute_map = {
        "hidden_size": "d_model",
        "intermediate_size": "mlp_hidden_size",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "num_key_value_heads": "n_kv_heads",
    }

    def __init__(self, **values: Any) -> None:
        values = {**DEFAULTS, **values}
        super().__init__(**values)
        for key in DEFAULTS:  # those that are also settings of generation were passed over
            setattr(self, key, values[key])


class _Part(nn.Module):
    """A place in the published tree of names; holds modules and does nothing."""


class DyninOmniModelLM(PreTrainedModel):
    """Ids to logits, with weights under the published names. One device; no cache, no `generate`: see `dynin.load`."""

    config_class = DyninOmniConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = [f"^{IGNORED_PREFIX}"]

    def __init__(self, config: DyninOmniConfig) -> None:
        super().__init__(config)
        shape = config_of(config.to_dict(), Path(config.name_or_path or CONFIG))
        network = Transformer(shape)
        self.__dict__["network"] = network  # unregistered: its own names are no part of the contract
        self._homes = {
            theirs.removesuffix(".weight"): ours.removesuffix(".weight")
            for theirs, ours in published_names(shape).items()
        }
        for theirs, ours in self._homes.items():
            self._place(theirs, network.get_submodule(ours))
        self.post_init()

    def forward(
        self,
        input_ids: Int[Tensor, "B S"],
        attention_mask: Shaped[Tensor, "B S"] | None = None,
        labels: Int[Tensor, "B S"] | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> CausalLMOutput | tuple[Tensor, ...]:
        """Logits of every position over all ids.

        Args:
            attention_mask: Nonzero at real columns; padding, on any side, is not attended.
            labels: The true id at a position (nothing is shifted), -100 where there is no loss.
            others: Arguments of other models; accepted while they ask for nothing.

        Raises:
            RequestError: If something is asked for that this network does not have.
        """
        if asked := [name for name, value in others.items() if value is not None and value is not False]:
            raise RequestError(
                f"forward was given {', '.join(asked)}; the network takes input_ids, attention_mask and labels alone"
            )
        self._adopt()
        hidden = self.network.hidden(input_ids, None if attention_mask is None else attention_mask.bool())
        logits: Float[Tensor, "B S V"] = self.network.output(hidden)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return CausalLMOutput(loss=loss, logits=logits)

    def save_pretrained(self, save_directory: str | Path, **settings: Any) -> None:
        """Write weights and config as `transformers` does, so that this project reads the folder too.

        The text tokenizer is taken along from where the model came from. Everything is written beside the folder first
        and moved into it when it is whole: where writing fails, the folder stays as it was. Weights, checksums and an
        index of an earlier save, which would contradict the new weights, are removed at the very end; other files stay.

        Raises:
            CheckpointError: If a file is in the place of the folder, or nothing can be written there.
        """
        folder = Path(save_directory)
        if settings.get("push_to_hub"):
            settings.setdefault("repo_id", folder.name)
        try:
            if folder.exists() and not folder.is_dir():
                raise FileExistsError(EEXIST, os.strerror(EEXIST))
            home = folder.resolve().parent
            home.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=f".{folder.name}.", dir=home) as place:
                super().save_pretrained(place, **settings)
                self._take_text_along(folder, Path(place))
                _move_into(folder, Path(place))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder}: could not be written ({getattr(error, 'strerror', None) or error}); check permissions and "
                "free space"
            ) from error

    def _take_text_along(self, folder: Path, place: Path) -> None:
        """Put the text tokenizer into a place, unless the folder has one or it cannot be found."""
        if not self.name_or_path or (folder / TOKENIZER).exists():
            return
        found = cached_file(
            self.name_or_path, TOKENIZER, local_files_only=True, _raise_exceptions_for_missing_entries=False
        )
        if found is not None:
            shutil.copyfile(found, place / TOKENIZER)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding table."""
        return self.get_submodule(TABLE.removesuffix(".weight"))

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding table."""
        self._place(TABLE.removesuffix(".weight"), value)

    def get_output_embeddings(self) -> nn.Module:
        """The output table."""
        return self.get_submodule(_OUTPUT)

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output table."""
        self._place(_OUTPUT, new_embeddings)

    def _place(self, name: str, module: nn.Module) -> None:
        """Put a module under a published name."""
        *path, last = name.split(".")
        home: nn.Module = self
        for step, following in pairwise([*path, last]):
            if not hasattr(home, step):
                home.add_module(step, nn.ModuleList() if following.isdigit() else _Part())
            home = getattr(home, step)
        setattr(home, last, module)

    def _adopt(self) -> None:
        """Let the network run what stands under the published names now: adapters and quantizers replace modules."""
        for theirs, ours in self._homes.items():
            module = self.get_submodule(theirs)
            if self.network.get_submodule(ours) is not module:
                self.network.set_submodule(ours, module)


def _move_into(folder: Path, place: Path) -> None:
    """Move what was written into a folder; if weights are among it, those of an earlier save go.

    A file is put in place of its namesake at once, the largest first, and nothing is removed before all are there.
    """
    written = sorted((path for path in place.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)
    for path in written:
        sync(path)
    folder.mkdir(exist_ok=True)
    for path in written:
        home = folder / path.relative_to(place)
        home.parent.mkdir(parents=True, exist_ok=True)
        path.replace(home)
    names = {path.name for path in written}
    if any(_WEIGHTS.fullmatch(name) for name in names):
        for path in sorted(folder.iterdir()):
            if path.name not in names and (path.name in (SUMS, INDEX) or _WEIGHTS.fullmatch(path.name)):
                path.unlink()
    sync(folder)


AutoConfig.register(DyninOmniConfig.model_type, DyninOmniConfig, exist_ok=True)
AutoModel.register(DyninOmniConfig, DyninOmniModelLM, exist_ok=True)
AutoModelForCausalLM.register(DyninOmniConfig, DyninOmniModelLM, exist_ok=True)
