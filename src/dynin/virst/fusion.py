"""The two spatio-temporal fusions: features of frames into [ST] embeddings, and [ST] states into prompts of frames.

Enters: embeddings or states of [ST] tokens, features of the frames that the mask branch saw. Leaves: changed
embeddings, or N prompts for every frame. Does not know backbones, masks or which frames were chosen.

    features V T C Y X --stride 2, several times--> cells V T c C
    embeddings R N D --[ + gate * attention to all cells ]--> R N D                                        InitialFusion
    states R N D --> R N T C --[ attention to itself; to all cells, by time and place; feed-forward ]--> R N T C
                                                                                                           SecondFusion
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dynin.errors import ConfigError
from dynin.virst.backbone.protocol import CellStates
from dynin.virst.cells import Cells, SeenFrames, cells_of, spatial_down
from dynin.virst.config import FusionConfig
from dynin.virst.points import Place, Points, quarters_of
from dynin.virst.rotary import angles, axis_dim, rotate_pairs


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prompts:
    """What the mask branch is told."""

    tokens: Float[Tensor, "R M T C"]
    """M prompts for every frame: one of each [ST] token and, with points, of each patch; anything finite where there is
    no frame."""
    frame_scores: Float[Tensor, "R T"] | None = None
    """How much of the last layer's attention falls on a cell of each frame, in the mean; None where there is none.

    Parity: published code computes it, 1 / cells / frames for a flat attention, and uses it nowhere."""
    cell_logits: Float[Tensor, "R T P"] | None = None
    """How sure it is that each of the backbone's patches holds what is meant; None where they are not looked at."""
    cell_places: Float[Tensor, "R T P 2"] | None = None
    """Where it would lie in or near each patch, column and row in shares of the frame's sides; None without points."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Asked:
    """What the prompts of R rows stand for, and what they may look at."""

    times: Float[Tensor, "R Q"]
    """When each prompt is; time runs fastest."""
    is_there: Bool[Tensor, "R Q"]
    """Whether its frame is there."""
    cells: Cells
    videos: Int[Tensor, " R"]
    own: Cells | None = None
    """Cells that each row has for itself, R in place of V."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Read:
    """What the second fusion is told of the backbone's states of the frames."""

    cells: CellStates
    """Of the frames that are seen, in their order."""
    middles: Float[Tensor, "P 2"]
    """Of each patch: column and row, in shares of the frame's sides."""
    place: Place

    def codes(self) -> Float[Tensor, "P C"]:
        """The code of each patch's middle."""
        return self.place(self.middles[None])[0]


def drop(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Set a share of entries to nothing and scale the others up; without a generator, leave all as it is."""
    if generator is None or share == 0:
        return x
    is_kept = torch.rand(x.shape, generator=generator, device=generator.device) >= share
    return x * is_kept.to(x.device) / (1 - share)


class InitialFusion(nn.Module):
    """Changes the [ST] embeddings of every sentence by what its video shows, before the backbone reads them.

    Source:
        VIRST, arXiv:2603.27060. Parity: the video is a bag of cells here, without time or place.
    """

    def __init__(self, st_dim: int, dim: int, config: FusionConfig) -> None:
        super().__init__()
        _require_heads(st_dim, config.initial_heads, "initial_heads")
        self.gate = nn.Parameter(torch.tensor(config.gate))
        self.spatial_down = spatial_down(dim, config.num_downs)
        self.spatial_norm = nn.LayerNorm(dim)
        self.vision_proj = nn.Linear(dim, st_dim)
        self.norm_q = nn.LayerNorm(st_dim)
        self.norm_kv = nn.LayerNorm(st_dim)
        self.cross_attn = nn.MultiheadAttention(st_dim, config.initial_heads, batch_first=True)

    def forward(
        self, st: Float[Tensor, "R N D"], seen: SeenFrames, videos: Int[Tensor, " R"]
    ) -> Float[Tensor, "R N D"]:
        """The embeddings of each row, with its video's features added in.

        Args:
            videos: Which video each row is about.
        """
        cells = cells_of(seen, self.spatial_down, self.spatial_norm)
        keys = self.norm_kv(self.vision_proj(cells.values))[videos]
        queries = self.norm_q(st)
        mixed, _ = self.cross_attn(queries, keys, keys, key_padding_mask=~cells.is_cell[videos], need_weights=False)
        return st + self.gate * mixed


class PlacedAttention(nn.Module):
    """Attention of prompts to cells, both turned by where they are.

    Keys are turned by time, row and column; queries have a time alone.
    """

    def __init__(self, dim: int, num_heads: int, theta: float, *, is_turned: bool) -> None:
        super().__init__()
        self.head_dim, self.theta, self.is_turned = dim // num_heads, theta, is_turned
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "R Q C"], asked: Asked, *, wants_weights: bool = False
    ) -> tuple[Float[Tensor, "R Q C"], Float[Tensor, "R Q S"] | None]:
        """What each prompt finds; and, where wanted, its attention to each cell, in the mean over heads."""
        cells, videos = asked.cells, asked.videos
        query = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        key = self.k_proj(cells.values).unflatten(-1, (-1, self.head_dim))
        value = self.v_proj(cells.values).unflatten(-1, (-1, self.head_dim))[videos].transpose(1, 2)
        if self.is_turned:
            width = axis_dim(self.head_dim)
            query = rotate_pairs(query, angles(asked.times, width, self.theta))
            key = rotate_pairs(key, angles(cells.places, width, self.theta).flatten(-2))
        query, key = query.transpose(1, 2), key[videos].transpose(1, 2)  # R H Q E, R H S E
        is_seen = cells.is_cell[videos][:, None, None, :]
        if asked.own is not None:
            key, value, is_seen = self._with_own(asked.own, key, value, is_seen)
        if not wants_weights:
            found = F.scaled_dot_product_attention(query, key, value, attn_mask=is_seen)
            return self.o_proj(found.transpose(1, 2).flatten(-2)), None
        scores = (query @ key.transpose(-1, -2)) * self.head_dim**-0.5
        weights = scores.masked_fill(~is_seen, float("-inf")).softmax(dim=-1)
        return self.o_proj((weights @ value).transpose(1, 2).flatten(-2)), weights.mean(dim=1)

    def _with_own(
        self,
        own: Cells,
        key: Float[Tensor, "R H S E"],
        value: Float[Tensor, "R H S E"],
        is_seen: Bool[Tensor, "R 1 1 S"],
    ) -> tuple[Float[Tensor, "R H U E"], Float[Tensor, "R H U E"], Bool[Tensor, "R 1 1 U"]]:
        """Keys and values with those of the rows' own cells behind them."""
        more, values = (proj(own.values).unflatten(-1, (-1, self.head_dim)) for proj in (self.k_proj, self.v_proj))
        if self.is_turned:
            more = rotate_pairs(more, angles(own.places, axis_dim(self.head_dim), self.theta).flatten(-2))
        key = torch.cat((key, more.transpose(1, 2)), dim=2)
        value = torch.cat((value, values.transpose(1, 2)), dim=2)
        return key, value, torch.cat((is_seen, own.is_cell[:, None, None, :]), dim=3)


class FusionLayer(nn.Module):
    """Prompts look at each other, then at the cells, then each is changed alone; each is normalised after."""

    def __init__(self, dim: int, config: FusionConfig) -> None:
        super().__init__()
        inner = config.ff_factor * dim
        self.dropout = config.dropout
        self.self_attn = nn.MultiheadAttention(dim, config.heads, batch_first=True)
        self.cross_attn = PlacedAttention(dim, config.heads, config.theta, is_turned=config.positions == "rotary")
        self.ff = nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(
        self,
        x: Float[Tensor, "R Q C"],
        asked: Asked,
        generator: torch.Generator | None,
        *,
        wants_weights: bool = False,
    ) -> tuple[Float[Tensor, "R Q C"], Float[Tensor, "R Q S"] | None]:
        """One layer, and the attention of prompts to cells where wanted."""
        mixed, _ = self.self_attn(x, x, x, key_padding_mask=~asked.is_there, need_weights=False)
        x = self.norm1(x + drop(mixed, self.dropout, generator))
        found, weights = self.cross_attn(x, asked, wants_weights=wants_weights)
        x = self.norm2(x + drop(found, self.dropout, generator))
        return self.norm3(x + drop(self.ff(x), self.dropout, generator)), weights


class SecondFusion(nn.Module):
    """Spreads the [ST] states of a sentence over the frames of its video and fits them to each.

    With `reads_cells` it looks at the backbone's states of the frames too, and each frame's prompts start from the
    place of the patch that is most likely meant, as if someone had pointed there; with `has_points` each patch is a
    prompt besides. Neither is published.

    Source:
        VIRST, arXiv:2603.27060.
    """

    def __init__(self, st_dim: int, dim: int, config: FusionConfig) -> None:
        super().__init__()
        _require_heads(dim, config.heads, "heads")
        self.config = config
        self.spatial_down = spatial_down(dim, config.num_downs)
        self.memory_norm = nn.LayerNorm(dim)
        self.seg_proj = nn.Linear(st_dim, dim)
        self.decoder = nn.ModuleList(FusionLayer(dim, config) for _ in range(config.layers))
        if config.reads_cells:
            self.own_proj = nn.Linear(st_dim, dim)
            self.place_proj = nn.Linear(dim, dim)
            self.own_norm = nn.LayerNorm(dim)
            self.pointer = nn.Linear(st_dim, 1)
            self.gate = nn.Parameter(torch.tensor(config.gate))
        self.points = Points(st_dim, dim) if config.has_points else None
        if config.positions == "learned":
            self.frame_embed = nn.Embedding(config.max_frames, dim)
            self.row_embed = nn.Embedding(config.max_cells, dim)
            self.column_embed = nn.Embedding(config.max_cells, dim)

    def forward(
        self,
        st: Float[Tensor, "R N D"],
        seen: SeenFrames,
        videos: Int[Tensor, " R"],
        generator: torch.Generator | None = None,
        *,
        read: Read | None = None,
        wants_scores: bool = False,
    ) -> Prompts:
        """Prompts of every frame.

        Args:
            videos: Which video each row is about.
            generator: For dropout; None outside training.
            read: The backbone's states of the frames, where they are looked at too.
            wants_scores: Whether frames are scored by attention, which writes all weights of the last layer out.

        Raises:
            ConfigError: With learned positions, for more frames or cells than there are vectors.
        """
        num_tokens, num_times = st.shape[1], seen.times.shape[1]
        cells = cells_of(seen, self.spatial_down, self.memory_norm)
        x = self.seg_proj(st)[:, :, None].expand(-1, -1, num_times, -1)  # R N T C
        if self.config.positions == "learned":
            cells, x = self._placed(cells, x, num_times)
        x = x.flatten(1, 2)
        asked = Asked(
            times=seen.times[videos].repeat(1, num_tokens),
            is_there=seen.is_frame[videos].repeat(1, num_tokens),
            cells=cells,
            videos=videos,
            own=self._own(read, seen, videos) if read is not None else None,
        )
        weights = None
        for index, layer in enumerate(self.decoder):
            is_last = index + 1 == len(self.decoder)
            x, weights = layer(x, asked, generator, wants_weights=wants_scores and is_last)
        found = Prompts(tokens=x.unflatten(1, (num_tokens, num_times)))
        if read is not None:
            found = self._pointed(found.tokens, read, seen, videos)
        if weights is None:
            return found
        share = asked.is_there / asked.is_there.sum(dim=1, keepdim=True)  # R Q
        scores = (weights * share[..., None]).sum(dim=1)[:, : cells.values.shape[1]]  # R S
        return replace(found, frame_scores=scores.unflatten(1, (num_times, -1)).mean(dim=-1))

    def _pointed(
        self, tokens: Float[Tensor, "R N T C"], read: Read, seen: SeenFrames, videos: Int[Tensor, " R"]
    ) -> Prompts:
        """Prompts that start from the place of the likeliest patch; with points, one of each patch behind them."""
        states, grid = read.cells.states.to(tokens.dtype), read.cells.grid
        logits = self.pointer(states).squeeze(-1)
        share = logits.softmax(dim=-1)  # R T P
        if self.points is None:
            return Prompts(tokens=self.gate * tokens + (share @ read.codes())[:, None], cell_logits=logits)
        at = self.points.places(states, read.middles, grid, quarters_of(seen.features, grid, videos))
        codes = read.place(at.flatten(0, 1)).unflatten(0, at.shape[:2])  # R T P C
        start = (share[..., None] * codes).sum(dim=2)  # R T C
        points = self.points.prompts(states, codes, logits.sigmoid(), share).transpose(1, 2)
        tokens = torch.cat((self.gate * tokens + start[:, None], points), dim=1)
        return Prompts(tokens=tokens, cell_logits=logits, cell_places=at)

    def _own(self, read: Read, seen: SeenFrames, videos: Int[Tensor, " R"]) -> Cells:
        """The backbone's states of the frames as cells: what each says, and the branch's code of where it is."""
        states, (rows, columns) = read.cells.states, read.cells.grid
        num_rows, num_times, num_cells, _ = states.shape
        codes = read.codes()
        values = self.own_norm(self.own_proj(states.to(codes.dtype)) + self.place_proj(codes))
        each = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(states.device).float()
        sides = self._sides(seen)
        spots = (each + 0.5) * torch.tensor([sides[0] / rows, sides[1] / columns], device=states.device) - 0.5
        times = seen.times[videos][:, :, None, None].expand(-1, -1, num_cells, 1).float()
        places = torch.cat((times, spots.expand(num_rows, num_times, -1, -1)), dim=-1)
        return Cells(
            values=values.flatten(1, 2),
            is_cell=read.cells.is_frame.repeat_interleave(num_cells, dim=1),
            places=places.flatten(1, 2),
            num_cells=num_cells,
        )

    def _sides(self, seen: SeenFrames) -> tuple[int, int]:
        """Rows and columns of the cells that features become."""
        rows, columns = seen.features.shape[-2:]
        for _ in range(self.config.num_downs):
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        return rows, columns

    def _placed(
        self, cells: Cells, x: Float[Tensor, "R N T C"], num_times: int
    ) -> tuple[Cells, Float[Tensor, "R N T C"]]:
        """Cells and prompts with learned vectors of when and where added."""
        rows, columns = (int(cells.places[0, :, axis].max()) + 1 for axis in (1, 2))
        if num_times > self.config.max_frames or max(rows, columns) > self.config.max_cells:
            raise ConfigError(
                f"{num_times} frames of {rows} x {columns} cells were given, 'fusion.max_frames' is "
                f"{self.config.max_frames} and 'fusion.max_cells' {self.config.max_cells}; raise them and train anew, "
                "or use rotary positions, which have no such limit"
            )
        frames = torch.arange(num_times, device=x.device)
        places = cells.places.long()
        at = self.row_embed(places[..., 1]) + self.column_embed(places[..., 2])
        at = at + self.frame_embed(frames).repeat_interleave(cells.num_cells, dim=0)
        moved = Cells(values=cells.values + at, is_cell=cells.is_cell, places=cells.places, num_cells=cells.num_cells)
        return moved, x + self.frame_embed(frames)


class UniformPrompts(nn.Module):
    """No second fusion: the same prompts for every frame, by a map of [ST] states alone."""

    def __init__(self, seg_proj: nn.Module) -> None:
        super().__init__()
        self.seg_proj = seg_proj

    def forward(
        self,
        st: Float[Tensor, "R N D"],
        seen: SeenFrames,
        videos: Int[Tensor, " R"],
        generator: torch.Generator | None = None,
        *,
        read: Read | None = None,
        wants_scores: bool = False,
    ) -> Prompts:
        """Prompts of every frame; frames get no scores."""
        return Prompts(tokens=self.seg_proj(st)[:, :, None].expand(-1, -1, seen.times.shape[1], -1))


def second_of(st_dim: int, dim: int, config: FusionConfig) -> SecondFusion | UniformPrompts:
    """What makes prompts, as the settings say; see `FusionConfig.second`."""
    if config.second == "fusion":
        return SecondFusion(st_dim, dim, config)
    if config.second == "linear":
        return UniformPrompts(nn.Linear(st_dim, dim))
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in SecondFusion(st_dim, dim, config).parameters())
    inner = max(1, round((count - dim) / (st_dim + dim + 1)))
    return UniformPrompts(nn.Sequential(nn.Linear(st_dim, inner), nn.GELU(), nn.Linear(inner, dim)))


def _require_heads(dim: int, num_heads: int, name: str) -> None:
    if dim % num_heads or dim // num_heads % 2:
        raise ConfigError(
            f"setting 'fusion.{name}' is {num_heads}, which does not split a width of {dim} into heads of even width; "
            "choose another number of heads"
        )
