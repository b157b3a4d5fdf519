"""The masked-diffusion model of this project as VIRST's video-language model: [ST] tokens read in one pass.

Enters: a `Dynin`, frames, sentences. Leaves: [ST] states. Does not know masks or fusions. The only file of `virst` that
knows the backbone: `dynin.model`, `dynin.sequence` and `dynin.pipeline`.

    <v2t> <sov> codes of frame 1 .. codes of frame T <eov> <start_header> sentence <end_header> <bos> [ST] x N  answer
                                                                                                      ^ read here

The row is that of the task v2t (i2t for one frame), with [ST] tokens where its answer would begin. They are visible
places like any other, with embeddings that come from outside, so every one of them sees the whole row, and the row sees
them. The network and its tokenizers stay as they are; adapters beside its matrices learn.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dynin import checkpoint
from dynin.diffusion.corrupt import exact_count, stratified_times
from dynin.errors import ConfigError, MediaError, RequestError
from dynin.model.transformer import Transformer, initialise
from dynin.nn.attention import usable
from dynin.pipeline import folder
from dynin.pipeline.dynin import Dynin
from dynin.sequence.layout import Assembler
from dynin.training import adapters
from dynin.training.resume import start_fingerprint
from dynin.types import Modality
from dynin.virst.backbone.protocol import CellStates, Clips, Reading, Sentences, TextScores
from dynin.virst.backbone.reader import PATCH_PX, FrameReader
from dynin.virst.config import BackboneConfig

TEXT, IMAGE, VIDEO = Modality.TEXT, Modality.IMAGE, Modality.VIDEO
ROOM = 128
"""Places that are kept free for sentence, answer and markers when frames are counted."""
MOST_PADDING = 0.25
"""Rows that would be padded by more than this share go through the network by themselves."""


class DyninBackbone(nn.Module):
    """A `protocol.Backbone`."""

    def __init__(
        self, base: Dynin, config: BackboneConfig, *, num_st: int, has_distinct_st: bool, seed: int, origin: str = ""
    ) -> None:
        """Take a model, freeze it, and put adapters beside its matrices.

        Args:
            base: Its network is changed in place.
            seed: Of everything that starts at random.
            origin: See `protocol.Backbone.origin`.

        Raises:
            ConfigError: If frames of that size cannot be encoded, or `peft` is missing.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.model = base.model
        if config.network:
            self.model = Transformer(replace(base.model.config, **config.network))
            initialise(self.model, generator)
        elif config.lora.rank:
            adapters.add(self.model, config.lora, seed=seed)
        self._is_whole = bool(config.network)
        self._base, self._origin = base, origin
        self.num_st, self.width = num_st, self.model.config.d_model
        self.frame_px = config.frame_px or base.tokenizers.image.image_size
        try:
            rows, columns = base.tokenizers.image.grid(self.frame_px, self.frame_px)
        except MediaError as error:
            raise ConfigError(f"setting 'backbone.frame_px' is {self.frame_px}: {error}") from error
        self._grid = (rows, columns)
        self.max_frames = (self.model.config.max_len - num_st - ROOM) // (rows * columns)
        if config.reader_width and self.frame_px != rows * PATCH_PX:
            raise ConfigError(
                f"setting 'backbone.reader_width' is {config.reader_width}: a reader gives a code for every "
                f"{PATCH_PX} px, the start's picture tokenizer one for every {self.frame_px // rows} px; set it to 0"
            )
        num_codes, reader_width = len(base.vocabulary.image), config.reader_width
        detail_dim = self.width if config.reader_details else 0
        self.reader = FrameReader(num_codes, reader_width, generator, detail_dim=detail_dim) if reader_width else None
        scale = float(self.model.embed.weight.detach().std())
        drawn = torch.randn(num_st if has_distinct_st else 1, self.width, generator=generator) * scale
        self.st_embed = nn.Parameter(drawn)

    @classmethod
    def load(
        cls,
        config: BackboneConfig,
        *,
        num_st: int,
        has_distinct_st: bool,
        seed: int,
        device: torch.device | str | None = None,
    ) -> "DyninBackbone":
        """Start from the model that the settings name.

        Raises:
            CheckpointError: If there is no such model, or it is damaged.
            ConfigError: As the constructor.
        """
        place = checkpoint.resolve(config.start) if config.start else folder.EMBEDDED_FOLDER
        base = folder.load(config.start or None, device=device)
        origin = start_fingerprint(os.fspath(place))
        return cls(base, config, num_st=num_st, has_distinct_st=has_distinct_st, seed=seed, origin=origin).to(device)

    def st_embeddings(self) -> Float[Tensor, "N D"]:
        """The embeddings with which the [ST] tokens enter where no fusion changes them."""
        return self.st_embed.expand(self.num_st, -1)

    def is_learned(self, name: str) -> bool:
        """Adapters, [ST] embeddings and the reader of frames; with random weights, the whole network."""
        return self._is_whole or name == "st_embed" or ".lora_" in name or name.startswith("reader.")

    def origin(self) -> str:
        """A hash of the start's files; empty for a model that came from no folder."""
        return self._origin

    def read(
        self,
        clips: Clips,
        sentences: Sentences,
        st_embeddings: Float[Tensor, "R N D"],
        generator: torch.Generator | None = None,
    ) -> Reading:
        """One bidirectional pass over every row; see `protocol.Backbone`.

        Answers are learned as the network learns all text: a random share of each is hidden, and foretold.
        """
        codes = self._places_of(clips) if self.reader is not None else clips.prepared or self.prepare(clips)
        rows = self._rows(codes, clips, sentences, with_answers=generator is not None)
        device = self.st_embed.device
        ids, is_real, is_st, is_answer = (value.to(device) for value in rows)
        is_hidden, prob = _hidden(is_answer, generator)
        ids = torch.where(is_hidden, self._base.vocabulary["mask"], ids)
        x = self.model.embed(ids)
        image = self._base.vocabulary.image
        is_code = (ids >= image.start) & (ids < image.stop)
        if self.reader is not None:
            videos = clips.prepared or self.prepare(clips)
            patches = torch.cat([videos[video] for video in sentences.videos])
            x = x.masked_scatter(is_code[..., None], patches.to(x.dtype))
        x = x.masked_scatter(is_st[..., None], st_embeddings.to(x.dtype))
        states = self._states(x, is_real)
        st_states = states[is_st].unflatten(0, (-1, self.num_st))
        return Reading(
            st_states=st_states,
            text=self._scores(states, rows[0].to(device), is_hidden, prob),
            cells=self._cell_states(states[is_code], clips, sentences),
        )

    def prepare(self, clips: Clips) -> list[Tensor]:
        """With a reader, embeddings of every patch of each video's frames; without one, their codes.

        The embeddings are those of a patch's codes, as likely as the reader holds them. With `reader_details` what the
        reader saw besides is added.

        Raises:
            RequestError: If frames are of another size, or more than any row has places for.
        """
        side, most = tuple(clips.frames.shape[-2:]), self.model.config.max_len // (self._grid[0] * self._grid[1])
        if side != (self.frame_px, self.frame_px) or max(clips.num_frames) > most:
            raise RequestError(
                f"up to {max(clips.num_frames)} frames of {side[1]} x {side[0]} px were given; this backbone takes up "
                f"to {most} of {self.frame_px} x {self.frame_px}; fit them first, or set frames.num_frames lower"
            )
        if self.reader is None:
            return self._codes(clips)
        found = self.reader.features(clips.frames[clips.is_frame])  # F N W
        likely = self.reader.output(found).float().softmax(dim=-1)  # F N K
        image = self._base.vocabulary.image
        embedded = likely @ self.model.embed.weight[image.start : image.stop].float()
        if self.reader.detail is not None:
            embedded = embedded + self.reader.detail(found)
        return [video.flatten(0, 1) for video in embedded.split(clips.num_frames)]

    def _cell_states(self, states: Float[Tensor, "K D"], clips: Clips, sentences: Sentences) -> CellStates:
        """States of patches by row, frame and patch."""
        videos = torch.tensor(sentences.videos, device=clips.is_frame.device)
        is_frame = clips.is_frame[videos].to(states.device)
        rows, columns = self._grid
        whole = states.new_zeros(*is_frame.shape, rows * columns, states.shape[-1])
        whole = whole.masked_scatter(is_frame[:, :, None, None], states)
        return CellStates(states=whole, is_frame=is_frame, grid=self._grid)

    def _states(self, x: Float[Tensor, "R S D"], is_real: Bool[Tensor, "R S"]) -> Float[Tensor, "R S D"]:
        """The states of all rows; stills do not go through the network at the length of the longest video."""
        places = torch.arange(1, is_real.shape[1] + 1, device=is_real.device)
        lengths = (is_real * places).amax(dim=1).tolist()
        groups, parts = alike(lengths), []
        for rows in groups:
            length = max(lengths[row] for row in rows)
            seen = is_real[rows, :length]
            states = self.model.states(x[rows, :length], None if bool(seen.all()) else usable(seen))
            parts.append(F.pad(states, (0, 0, 0, x.shape[1] - length)))
        order = torch.tensor([row for rows in groups for row in rows], device=x.device)
        return torch.cat(parts)[order.argsort()]

    def _rows(
        self, codes: Sequence[Tensor], clips: Clips, sentences: Sentences, *, with_answers: bool
    ) -> tuple[Int[Tensor, "R S"], Bool[Tensor, "R S"], Bool[Tensor, "R S"], Bool[Tensor, "R S"]]:
        """Ids; which columns are real; which are [ST] tokens; which belong to answers. Rows are padded on the right."""
        vocabulary, tokenizers = self._base.vocabulary, self._base.tokenizers
        assembler = Assembler(vocabulary=vocabulary, encode_text=tokenizers.text.encode)
        counts = clips.num_frames
        parts = []
        for row, (text, video) in enumerate(zip(sentences.texts, sentences.videos, strict=True)):
            modality = IMAGE if counts[video] == 1 else VIDEO
            task = self._base.tasks[f"{modality.letter}2t"]
            given: dict[Modality, str | Tensor] = {modality: codes[video], TEXT: text}
            laid = assembler.assemble(task, given, lengths={TEXT: self.num_st})
            answer = sentences.answers[row] if with_answers and sentences.answers else None
            end = [] if answer is None else [*tokenizers.text.encode(answer), vocabulary["eos"]]
            parts.append((laid.ids, laid.is_target, laid.attend, torch.tensor(end, dtype=torch.long)))
        lengths = [len(ids) + len(tail) for ids, _, _, tail in parts]
        self._require_room(lengths, clips, sentences)
        shape = (len(parts), max(lengths))
        whole = torch.full(shape, vocabulary.pad_id)
        is_real, is_st, is_answer = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
        for row, (ids, is_target, attend, tail) in enumerate(parts):
            middle, stop = len(ids), len(ids) + len(tail)
            whole[row, :stop] = torch.cat([ids, tail])
            is_real[row, :middle], is_real[row, middle:stop] = attend, True
            is_st[row, :middle], is_answer[row, middle:stop] = is_target, True
        return whole, is_real, is_st, is_answer

    def _require_room(self, lengths: list[int], clips: Clips, sentences: Sentences) -> None:
        """RequestError if a row is longer than the network was trained for."""
        longest = self.model.config.max_len
        for row, length in enumerate(lengths):
            if length > longest:
                raise RequestError(
                    f"sentence {row} with the {clips.num_frames[sentences.videos[row]]} frames of its video takes "
                    f"{length} places, the model has {longest}; shorten the sentence, or set frames.num_frames lower"
                )

    def _places_of(self, clips: Clips) -> list[Int[Tensor, " codes"]]:
        """Where a reader says what stands at the places of codes, any code keeps the place."""
        cells = self._grid[0] * self._grid[1]
        return [torch.zeros(count * cells, dtype=torch.long) for count in clips.num_frames]

    @torch.no_grad()
    def _codes(self, clips: Clips) -> list[Int[Tensor, " codes"]]:
        """The codes of each video, frame by frame; all frames of the batch are encoded once."""
        image = self._base.tokenizers.image
        here = next(image.parameters()).device if isinstance(image, nn.Module) else clips.frames.device
        frames = clips.frames[clips.is_frame].to(here)
        codes = torch.cat([image.encode(part) for part in frames.split(self._base.tokenizers.video.frames_at_once)])
        return [part.flatten().cpu() for part in codes.split(clips.num_frames)]

    def _scores(
        self,
        states: Float[Tensor, "R S D"],
        ids: Int[Tensor, "R S"],
        is_hidden: Bool[Tensor, "R S"],
        prob: Float[Tensor, "R S"],
    ) -> TextScores | None:
        """What the network foretells at hidden places of answers; None where nothing is hidden."""
        if not bool(is_hidden.any()):
            return None
        allowed = self._base.vocabulary.allowed_ids(TEXT, "eos").to(ids.device)
        targets = torch.searchsorted(allowed, ids[is_hidden])
        return TextScores(
            logits=self.model.head(states[is_hidden], allowed).float(),
            targets=targets,
            weights=prob[is_hidden],
            num_rows=int(is_hidden.any(dim=1).sum()),
        )


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in groups, none of which pads a row by more than `MOST_PADDING`; the longest rows first."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if groups and lengths[row] >= (1 - MOST_PADDING) * lengths[groups[-1][0]]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _hidden(
    is_answer: Bool[Tensor, "R S"], generator: torch.Generator | None
) -> tuple[Bool[Tensor, "R S"], Float[Tensor, "R S"]]:
    """Which places of answers are hidden, and what each counts: one over how many there are of its row.

    Source: LLaDA, arXiv:2502.09992; the share is drawn evenly, and exactly so many places are hidden.
    """
    if generator is None or not bool(is_answer.any()):
        return torch.zeros_like(is_answer), torch.zeros(is_answer.shape, device=is_answer.device)
    there = is_answer.to(generator.device)
    share = stratified_times(len(there), generator=generator, device=generator.device)
    is_hidden = exact_count(there, share, generator=generator).to(is_answer.device)
    counts = is_hidden.sum(dim=1, keepdim=True).clamp(min=1)
    return is_hidden, (1.0 / counts).expand(is_answer.shape)
