"""Trains the small speech codec: rebuild the spectrum in the speaker's style, and let codes spell the phones.

Enters: a `SpeechCorpus` and sizes. Leaves: trained weights and, for resuming, optimizer and step. Does not know the
language model. Input is disturbed (speed, vocal tract, noise, masks), the target is not; so codes keep the content.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dynin.config import AT_LEAST_ONE, AT_LEAST_ZERO, SHARE, require_ranges
from dynin.data.speech_corpus import SpeechCorpus
from dynin.errors import CheckpointError, ConfigError
from dynin.media.files import replace_whole
from dynin.tokenizers.small.spectrum import log_mel, magnitudes
from dynin.tokenizers.small.speech import FRAMES_PER_CODE, SmallSpeechTokenizer, SpeechCodecConfig
from dynin.training import state

PHONES = tuple(
    "aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh".split()
)
"""flite's American English phones; id 0 of the phone head is the blank, these follow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechTrainConfig:
    """How long and how the codec is trained."""

    num_steps: int = 4000
    batch_size: int = 16
    peak_rate: float = 2e-3
    final_rate: float = 2e-5
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_norm: float = 1.0
    phone_weight: float = 0.3
    disturb: float = 1.0
    """0 switches the disturbances of the input off, 1 is their full strength."""
    save_every: int = 250

    def __post_init__(self) -> None:
        """ConfigError for numbers that no training can have."""
        require_ranges(self, dict.fromkeys(("num_steps", "batch_size", "save_every"), AT_LEAST_ONE), "training.")
        others = ("peak_rate", "final_rate", "warmup_steps", "weight_decay", "max_norm", "phone_weight")
        require_ranges(self, {**dict.fromkeys(others, AT_LEAST_ZERO), "disturb": SHARE}, "training.")


class PhoneHead(nn.Module):
    """Reads phones from quantized values; only training uses it."""

    def __init__(self, num_coordinates: int, dim: int = 192) -> None:
        """Two convolutions that see about a third of a second."""
        super().__init__()
        self.stem = nn.Conv1d(num_coordinates, dim, 5, padding=2)
        self.middle = nn.Conv1d(dim, dim, 3, padding=1)
        self.out = nn.Conv1d(dim, len(PHONES) + 1, 1)

    def forward(self, values: Float[Tensor, "B L N"]) -> Float[Tensor, "B P N"]:
        """Quantized values to scores of blank and phones."""
        hidden = nn.functional.gelu(self.stem(values))
        return self.out(nn.functional.gelu(self.middle(hidden)))


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechBatch:
    """Utterances ready for a step."""

    waves: Float[Tensor, "B T"]
    num_codes: Int[Tensor, " B"]
    styles: Int[Tensor, " B"]
    phones: Int[Tensor, " P"]
    """Phone ids of all utterances one after another."""
    num_phones: Int[Tensor, " B"]


def speech_batches(
    corpus: SpeechCorpus, codec: SmallSpeechTokenizer, batch_size: int, rng: np.random.Generator
) -> Iterator[SpeechBatch]:
    """Endless batches of utterances of similar length; ConfigError for a voice that is no style of the codec."""
    strangers = set(corpus.voices) - set(codec.styles)
    if strangers:
        raise ConfigError(f"the codec has no style for the voices {sorted(strangers)}; train on {codec.styles}")
    lengths = corpus.lengths()
    known = {phone: index + 1 for index, phone in enumerate(PHONES)}
    while True:
        pool = rng.permutation(len(corpus))[: batch_size * 16]
        groups = [group for group in np.array_split(pool[np.argsort(lengths[pool])], max(1, len(pool) // batch_size))]
        for which in rng.permutation(len(groups)):
            chosen = groups[which].tolist()
            waves, num_codes = codec.pad([corpus.wave(index) for index in chosen])
            phones = [[known[phone] for phone in corpus.phones[index].split()] for index in chosen]
            yield SpeechBatch(
                waves=waves,
                num_codes=num_codes,
                styles=torch.tensor([codec.style_index(corpus.voices[index]) for index in chosen], device=waves.device),
                phones=torch.tensor([phone for row in phones for phone in row], device=waves.device),
                num_phones=torch.tensor([len(row) for row in phones], device=waves.device),
            )


def codec_loss(
    codec: SmallSpeechTokenizer,
    head: PhoneHead,
    batch: SpeechBatch,
    config: SpeechTrainConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Mean absolute errors of log-magnitudes and log-mel energies plus the weighted phone error of the codes.

    Source: connectionist temporal classification, Graves et al., ICML 2006.
    """
    spectrum = codec.config.spectrum
    magnitude = magnitudes(batch.waves, spectrum)
    target_mel = log_mel(magnitude, codec.filters, spectrum.floor)
    target = torch.log(magnitude + spectrum.floor)
    num_codes = batch.num_codes
    if config.disturb and rng.random() < 0.4 * config.disturb:
        factor = float(rng.uniform(0.85, 1.2))
        target, target_mel = (_stretch(value, factor) for value in (target, target_mel))
        num_codes = (num_codes * factor).long().clamp(min=1, max=target.shape[2] // FRAMES_PER_CODE)
    inside = torch.arange(target.shape[2] // FRAMES_PER_CODE, device=target.device)[None] < num_codes[:, None]
    heard = disturb(target_mel, config.disturb, rng) if config.disturb else target_mel
    values = codec.quantizer(codec.encode_latents(heard, inside))
    linear, mel = codec.decoder(values, batch.styles, inside[:, None].float())
    frames = inside.repeat_interleave(FRAMES_PER_CODE, dim=1)[:, None].float()
    linear_error = ((linear - target).abs() * frames).sum() / (frames.sum() * linear.shape[1])
    mel_error = ((mel - target_mel).abs() * frames).sum() / (frames.sum() * mel.shape[1])
    scores = torch.log_softmax(head(values * inside[:, None]).permute(2, 0, 1), dim=2)
    phone_error = nn.functional.ctc_loss(scores, batch.phones, num_codes, batch.num_phones, zero_infinity=True)
    loss = linear_error + mel_error + config.phone_weight * phone_error
    return loss, {"linear": linear_error.item(), "mel": mel_error.item(), "phone": phone_error.item()}


def disturb(mel: Float[Tensor, "B M K"], strength: float, rng: np.random.Generator) -> Float[Tensor, "B M K"]:
    """Log-mel energies as another speaker in another room would give: warped, blurred, noisy, partly hidden."""
    num_bins, device = mel.shape[1], mel.device
    if rng.random() < 0.7:
        factor = 1 + strength * torch.from_numpy(rng.uniform(-0.12, 0.12, size=mel.shape[0])).float().to(device)
        source = (torch.arange(num_bins, device=device)[None] * factor[:, None]).clamp(max=num_bins - 1)  # B M
        low = source.floor().long().clamp(max=num_bins - 2)
        share = (source - low)[:, :, None]
        index = low[:, :, None].expand(-1, -1, mel.shape[2])
        mel = mel.gather(1, index) * (1 - share) + mel.gather(1, index + 1) * share
    if rng.random() < 0.3:
        along = mel.transpose(1, 2)  # B K M
        blurred = nn.functional.avg_pool1d(along, 3, stride=1, padding=1, count_include_pad=False)
        mel = blurred.transpose(1, 2)
    if rng.random() < 0.4:
        level = strength * torch.from_numpy(np.exp(rng.uniform(-4.5, -2.5, size=(mel.shape[0], 1, 1)))).float().to(
            device
        )
        noise = torch.from_numpy(rng.random(mel.shape, dtype=np.float32)).to(device)
        mel = torch.log(mel.exp() + level * noise)
    if rng.random() < 0.3:
        start = int(rng.integers(num_bins - 8))
        mel = mel.clone()
        mel[:, start : start + int(rng.integers(2, 9))] = mel.mean()
    return mel


def train_speech_codec(
    codec: SmallSpeechTokenizer,
    corpus: SpeechCorpus,
    config: SpeechTrainConfig,
    *,
    folder: Path,
    seed: int,
    report: Callable[[int, dict[str, float]], None],
) -> None:
    """Train on the device the codec is on; resumes from `folder` when it holds an unfinished run.

    Draws begin anew from (seed, step) at every save, so a continued run equals an uninterrupted one.

    Args:
        codec: Fresh or loaded weights, changed in place.
        corpus: Utterances of training voices only, with phones.
        config: Steps, rates and weights.
        folder: Where weights, optimizer and step are kept.
        seed: Of batches and disturbances.
        report: Called with the step and mean errors about every 50 steps.
    """
    head = PhoneHead(len(codec.config.levels))
    initialise(head, torch.Generator().manual_seed(seed))
    head.to(codec.filters.device)
    trained = nn.ModuleDict({"codec": codec, "head": head})
    weights = list(trained.parameters())
    optimizer = torch.optim.AdamW(weights, lr=config.peak_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    step = state.load(folder / "state", trained, None, [optimizer])
    rng = np.random.default_rng([seed, step])
    batches = speech_batches(corpus, codec, config.batch_size, rng)
    sums: dict[str, float] = {}
    codec.train()
    while step < config.num_steps:
        rate = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, errors = codec_loss(codec, head, next(batches), config, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, config.max_norm)
        optimizer.step()
        step += 1
        sums = {name: sums.get(name, 0.0) + value / 50 for name, value in errors.items()}
        if step % 50 == 0:
            report(step, sums)
            sums = {}
        if step % config.save_every == 0 or step == config.num_steps:
            write_speech_codec(folder, codec)
            state.save(folder / "state", step, trained, None, [optimizer])
            rng = np.random.default_rng([seed, step])
            batches = speech_batches(corpus, codec, config.batch_size, rng)
    codec.eval()


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw fresh weights: uniform within 1 / sqrt(inputs) for layers and biases, normal for styles, as PyTorch does."""
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Linear):
            bound = part.weight[0].numel() ** -0.5
            for value in part.parameters():
                nn.init.uniform_(value, -bound, bound, generator=generator)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, generator=generator)


def learning_rate(step: int, config: SpeechTrainConfig) -> float:
    """Linear warm-up, then half a cosine down to the final rate."""
    if step < config.warmup_steps:
        return config.peak_rate * (step + 1) / config.warmup_steps
    done = min(1.0, (step - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps))
    return config.final_rate + (config.peak_rate - config.final_rate) * (1 + math.cos(math.pi * done)) / 2


def write_speech_codec(folder: Path, codec: SmallSpeechTokenizer, dtype: torch.dtype = torch.float32) -> None:
    """Weights as `speech.safetensors` and sizes as `speech.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in codec.state_dict().items()}
    with replace_whole(folder / "speech.safetensors") as temporary:
        save_file(tensors, temporary)
    with replace_whole(folder / "speech.json") as temporary:
        temporary.write_text(json.dumps(asdict(codec.config), indent=1))


def read_speech_codec(folder: Path) -> SmallSpeechTokenizer:
    """The codec of a folder in float32, whatever type its weights are stored in; CheckpointError when damaged."""
    try:
        config = SpeechCodecConfig.from_dict(json.loads((folder / "speech.json").read_text()))
        codec = SmallSpeechTokenizer(config)
        tensors = load_file(folder / "speech.safetensors")
        codec.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} holds no speech codec ({error}); train one first") from error
    return codec.eval()


def _stretch(frames: Float[Tensor, "B F K"], factor: float) -> Float[Tensor, "B F K2"]:
    """Frames spread over a longer or shorter time, a whole number of codes."""
    count = max(1, round(frames.shape[2] * factor / FRAMES_PER_CODE)) * FRAMES_PER_CODE
    return nn.functional.interpolate(frames, size=count, mode="linear", align_corners=False)
