"""The embedded image tokenizer: one code for every 16 x 16 px patch, made from that patch alone.

Enters: pictures in [-1, 1] whose sides are multiples of the patch. Leaves: codes in raster order, and pictures again.
Does not know how its weights are trained (training/codec_image.py), what the pictures show, or ids of a vocabulary.

    encode   patch --> two-layer network --> 10 numbers --> signs --> code 0..1023          (lookup-free quantization)
    decode   code  --> tile of colour and opacity
             picture = opacity * colour + (1 - opacity) * ground

A code says what is in front. What shows through a tile is the ground: the colour of the plain codes that prevail
nearby. So the same thing has the same codes on every ground, and a model that has seen a dog on red can draw it on
blue. Plain codes and codes of general patches are opaque and need nothing from elsewhere.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from dynin.errors import CheckpointError, MediaError, VocabularyError

CONFIG_NAME = "image.json"
WEIGHTS_NAME = "image.safetensors"
VOTE_REACH_CELLS = 2.0
"""Standard deviation, in cells, of the weight with which a plain code votes for the ground of a cell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallImageConfig:
    """Sizes of the embedded image tokenizer."""

    patch_px: int = 16
    num_bits: int = 10
    """The codebook has 2 ** num_bits codes."""
    hidden_dim: int = 256
    image_size: int = 64
    """Side in pixels of the pictures the language model is trained on."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.num_bits <= 16:
            raise CheckpointError(f"num_bits is {self.num_bits}; the image tokenizer needs 1 to 16")
        if self.patch_px < 1 or self.hidden_dim < 1 or self.image_size % self.patch_px:
            raise CheckpointError(
                f"patch_px {self.patch_px}, hidden_dim {self.hidden_dim}, image_size {self.image_size}: sizes must be "
                "positive and image_size a multiple of patch_px"
            )


class PatchEncoder(nn.Module):
    """A patch to the numbers whose signs are its code."""

    def __init__(self, config: SmallImageConfig) -> None:
        """Draw nothing: the weights keep PyTorch's initialisation until training or loading."""
        super().__init__()
        width = config.hidden_dim
        self.inner = nn.Linear(3 * config.patch_px**2, width)
        self.norm = nn.LayerNorm(width)
        self.middle = nn.Linear(width, width)
        self.outer = nn.Linear(width, config.num_bits)

    def forward(self, patches: Float[Tensor, "*N P"]) -> Float[Tensor, "*N K"]:
        """Flat patches in [-1, 1] to one number a bit; zero is the border between the two values of the bit."""
        hidden = functional.relu(self.norm(self.inner(patches)))
        return self.outer(hidden + functional.relu(self.middle(hidden)))


class SmallImageTokenizer(nn.Module):
    """Patch-local encoder and layered decoder; meets `tokenizers.protocol.ImageTokenizer`."""

    tiles: Tensor
    ground_weight: Tensor

    def __init__(self, config: SmallImageConfig) -> None:
        """Build with untrained weights: grey, opaque tiles."""
        super().__init__()
        self.config = config
        self.codebook_size = 2**config.num_bits
        self.downsample = config.patch_px
        self.image_size = config.image_size
        self.encoder = PatchEncoder(config)
        tiles = torch.zeros(self.codebook_size, 4, config.patch_px, config.patch_px)
        tiles[:, 3] = 1.0
        self.tiles = nn.Parameter(tiles)  # red, green, blue in [-1, 1], opacity in [0, 1]
        self.register_buffer("ground_weight", torch.zeros(self.codebook_size))  # above 0 for plain codes only

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of codes for a picture of this size in pixels; MediaError when they do not fit."""
        patch = self.downsample
        if height < patch or width < patch or height % patch or width % patch:
            raise MediaError(
                f"picture is {width} x {height} px; the image tokenizer needs sides that are multiples of {patch} px; "
                "resize it with media.image.fit_square"
            )
        return height // patch, width // patch

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B N"]:
        """Pixels in [-1, 1] to codes in raster order; bit 0 of the network is the most significant."""
        rows, columns = self.grid(*pixels.shape[-2:])
        logits = self.encoder(patches_of(pixels.to(self.tiles.dtype), self.downsample))  # B N K
        powers = 2 ** torch.arange(self.config.num_bits - 1, -1, -1, device=logits.device)
        return ((logits > 0) * powers).sum(-1).reshape(pixels.shape[0], rows * columns)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B 3 Y X"]:
        """Codes in raster order to pixels in [-1, 1].

        Raises:
            VocabularyError: If the codes do not fill the grid or one is outside the codebook.
        """
        rows, columns = grid
        if codes.shape[-1] != rows * columns:
            raise VocabularyError(
                f"{codes.shape[-1]} image codes do not fill a grid of {rows} rows x {columns} columns"
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise VocabularyError(
                f"image codes lie in [{int(codes.min())}, {int(codes.max())}]; "
                f"the codebook has 0 to {self.codebook_size - 1}"
            )
        tiles = self.tiles[codes]  # B N 4 p p
        colour, opacity = tiles[:, :, :3], tiles[:, :, 3:]
        ground = self._ground(codes, grid)[..., None, None]  # B N 3 1 1
        patches = opacity * colour + (1 - opacity) * ground
        patch = self.downsample
        picture = patches.reshape(-1, rows, columns, 3, patch, patch).permute(0, 3, 1, 4, 2, 5)
        return picture.reshape(-1, 3, rows * patch, columns * patch).clamp(-1, 1)

    def _ground(self, codes: Int[Tensor, "B N"], grid: tuple[int, int]) -> Float[Tensor, "B N 3"]:
        """The colour behind every cell: that of the plain code with most votes, near cells counting more.

        Plain cells are told by `ground_weight`; in a grid without any, the ground is mid grey.
        """
        rows, columns = grid
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2).to(codes.device)
        away = (places[:, None] - places[None]).square().sum(-1).to(self.tiles.dtype)  # N N
        weight = self.ground_weight[codes]  # B N
        ballots = weight[:, None] * torch.exp(-away / (2 * VOTE_REACH_CELLS**2))  # B N N: voter in the last place
        is_same = (codes[:, :, None] == codes[:, None]).to(ballots.dtype)
        winner = (ballots @ is_same).argmax(-1)  # B N: a cell whose code has most votes
        colours = self.tiles[:, :3].mean((2, 3)) * (self.ground_weight > 0)[:, None]
        return colours[codes.gather(1, winner)]

    def fingerprint(self) -> str:
        """A hash of configuration and weights: equal fingerprints give equal codes."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write `image.json` and `image.safetensors` into a folder, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / (WEIGHTS_NAME + ".part")
        save_file({name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}, part)
        part.replace(folder / WEIGHTS_NAME)
        part = folder / (CONFIG_NAME + ".part")
        part.write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="ascii")
        part.replace(folder / CONFIG_NAME)

    @classmethod
    def load(cls, folder: Path) -> "SmallImageTokenizer":
        """The tokenizer saved in a folder, in float32 on the CPU.

        Raises:
            CheckpointError: If a file is missing, damaged, or does not fit the configuration.
        """
        try:
            config = SmallImageConfig(**json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")))
            weights = load_file(folder / WEIGHTS_NAME)
            tokenizer = cls(config)
            tokenizer.load_state_dict({name: value.float() for name, value in weights.items()})
        except FileNotFoundError as error:
            raise CheckpointError(
                f"image tokenizer file {error.filename} is missing; train one or restore it"
            ) from error
        except (json.JSONDecodeError, TypeError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"image tokenizer in {folder} is damaged or of another version: {reason}") from error
        return tokenizer.eval().requires_grad_(False)


def patches_of(pixels: Float[Tensor, "B 3 Y X"], patch_px: int) -> Float[Tensor, "B N P"]:
    """Cut pictures into flat patches in raster order; inside a patch the order is colour, row, column."""
    return functional.unfold(pixels, patch_px, stride=patch_px).transpose(1, 2)
