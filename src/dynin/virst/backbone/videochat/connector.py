"""The bridge from the tower to the language model: merge the tokens of each clip, then two linear maps.

Enters: patch features of clips or pictures. Leaves: tokens as wide as the language model's embeddings. Does not know
time or text.
"""

from jaxtyping import Float
from torch import Tensor, nn

from dynin.virst.backbone.videochat.config import VideoChatConfig
from dynin.virst.backbone.videochat.merging import merge


class Connector(nn.Module):
    """Merging by likeness, and a feed-forward network: tower width, language width, language width."""

    def __init__(self, config: VideoChatConfig):
        super().__init__()
        self.num_heads = config.tower.num_heads
        self.merges_exactly = config.merges_exactly
        self.first = nn.Linear(config.tower.width, config.language.width)
        self.act = nn.GELU()
        self.second = nn.Linear(config.language.width, config.language.width)

    def forward(self, patches: Float[Tensor, "B S C"], num_left: int) -> Float[Tensor, "B K D"]:
        """`num_left` tokens for each row."""
        tokens, _ = merge(patches, num_left, self.num_heads, is_exact=self.merges_exactly)
        return self.second(self.act(self.first(tokens)))
