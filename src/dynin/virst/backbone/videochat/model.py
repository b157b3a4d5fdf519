"""VideoChat-Flash behind the protocol: videos and sentences to the states of the [ST] tokens, in one causal pass.

Enters: frames, sentences, and the embeddings with which the [ST] tokens enter. Leaves: their last, normalised states at
their own places, and scores of the text that is to be learnt. Does not know masks, fusions or files.

    frames --tower, clip by clip--> patches --connector--> 16 tokens a frame
    sentence --prompter--> chat, with places for the video and the [ST] tokens
    row: embeddings of the chat, the video's tokens in it, the given [ST] embeddings  --Qwen2-->  states

Rows are padded behind their end, where nothing before it can see, so that each comes out as it does alone. A video is
seen once, however many sentences are about it.

Source:
    VIRST, arXiv:2603.27060; `AIDASLab/VIRST model/VIRST.py`.

Parity:
    The published code cuts off what is longer than 4,096 positions, without a word; here a row is refused where it
    does not fit. A video whose frames fill no whole number of clips fails there; here its last frame is repeated.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dynin.errors import RequestError
from dynin.tokenizers.text import ByteLevelText
from dynin.training.resume import start_fingerprint
from dynin.virst.backbone.protocol import Clips, Reading, Sentences, TextScores
from dynin.virst.backbone.videochat import language
from dynin.virst.backbone.videochat.config import VideoChatConfig
from dynin.virst.backbone.videochat.connector import Connector
from dynin.virst.backbone.videochat.prompt import PromptConfig, Prompter, Row
from dynin.virst.backbone.videochat.umt import Tower

INIT_STD = 0.02
"""Of random weights."""


class VideoChat(nn.Module):
    """The published backbone."""

    def __init__(self, config: VideoChatConfig, text: ByteLevelText, prompt: PromptConfig | None = None):
        """Build it with weights that mean nothing yet.

        Raises:
            CheckpointError: If the tokenizer does not know the chat's marks.
            RequestError: If the package transformers is missing, or the table has no row for the [ST] token.
        """
        super().__init__()
        self.config = config
        self.width, self.num_st = config.language.width, config.num_st
        self.frame_px, self.max_frames = config.tower.frame_px, config.max_frames
        self.start: Path | None = None
        """The folder that the weights came from, if any."""
        self.prompter = Prompter(text, config.num_st, prompt)
        if self.prompter.st_id >= config.language.num_rows:
            raise RequestError(
                f"the [ST] token is id {self.prompter.st_id}, but the embedding table has {config.language.num_rows} "
                "rows; take the tokenizer that belongs to these weights"
            )
        self.tower = Tower(config.tower)
        self.connector = Connector(config)
        self.language: Any = language.build(config.language)
        self.head = nn.Linear(config.language.width, config.language.num_rows, bias=False)
        self.st_embed = nn.Parameter(torch.zeros(config.num_st if config.has_distinct_st else 1, config.language.width))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:  # type: ignore[override]
        """Whatever moves or casts the weights leaves the rotary frequencies in float32."""
        result = super()._apply(fn, recurse)
        if not next(self.parameters()).is_meta:
            language.refresh_rotary(self.language)
        return result

    # --- the protocol -------------------------------------------------------------------------------------------------

    def st_embeddings(self) -> Float[Tensor, "N D"]:
        """The learned embeddings of the [ST] tokens, or the one of them all."""
        return self.st_embed.expand(self.num_st, -1)

    def is_learned(self, name: str) -> bool:
        """The [ST] embeddings and adapters are VIRST's; the rest is VideoChat-Flash's."""
        return name == "st_embed" or ".lora_" in name

    def origin(self) -> str:
        """A hash over the files that it starts from, made when asked for; empty for a model that has none."""
        return "" if self.start is None else start_fingerprint(os.fspath(self.start))

    def read(
        self,
        clips: Clips,
        sentences: Sentences,
        st_embeddings: Float[Tensor, "R N D"],
        generator: torch.Generator | None = None,
    ) -> Reading:
        """One causal pass over every row; see the protocol.

        Args:
            generator: Draws the wording of questions and answers, and says that this is training, so that the answers
                are scored: also the words around the [ST] tokens, where a row has no answer of its own.

        Raises:
            RequestError: If frames are of another size or too many, or a row does not fit the model's length.
        """
        videos = self.prepare(clips) if clips.prepared is None else clips.prepared
        num_frames = clips.num_frames
        answers = sentences.answers or (None,) * len(sentences)
        rows = [
            self.prompter.row(text, is_video=num_frames[video] > 1, answer=answer, generator=generator)
            for text, video, answer in zip(sentences.texts, sentences.videos, answers, strict=True)
        ]
        self._require_fit(rows, [videos[video].shape[0] for video in sentences.videos])
        seen = [
            self._embedded(row, videos[at], st)
            for row, at, st in zip(rows, sentences.videos, st_embeddings, strict=True)
        ]
        states = self._states([entry.embeddings for entry in seen])
        st_states = torch.stack([states[index, entry.st_places] for index, entry in enumerate(seen)])
        text = None if generator is None else self._scores(states, seen)
        return Reading(st_states=st_states, text=text)

    def prepare(self, clips: Clips) -> list[Float[Tensor, "_ D"]]:
        """The tokens of each video, in the order of its frames; clips of all videos pass the tower together.

        Raises:
            RequestError: If frames are of another size or too many.
        """
        num_frames, side = clips.num_frames, clips.frames.shape[-2:]
        if side != (self.frame_px, self.frame_px) or max(num_frames) > self.max_frames:
            raise RequestError(
                f"received up to {max(num_frames)} frames of {side[1]} x {side[0]} px; VideoChat takes up to "
                f"{self.max_frames} of {self.frame_px} x {self.frame_px}"
            )
        length = self.config.tower.clip_frames
        pictures, runs = [], []
        for frames, count in zip(clips.frames.to(self.st_embed.device), num_frames, strict=True):
            if count == 1:
                pictures.append(frames[:1])
            else:
                full = torch.cat([frames[:count], frames[count - 1 : count].expand(-count % length, -1, -1, -1)])
                runs += [*full.split(length)]
        of_pictures = iter(self._tokens(pictures, self.config.tokens_per_picture))
        of_clips = iter(self._tokens(runs, self.config.tokens_per_clip))
        return [
            next(of_pictures) if count == 1 else torch.cat([next(of_clips) for _ in range(-(-count // length))])
            for count in num_frames
        ]

    # --- its steps ----------------------------------------------------------------------------------------------------

    def _tokens(self, runs: list[Tensor], num_left: int) -> list[Float[Tensor, "_ D"]]:
        """The tokens of clips or pictures, of which so many pass together."""
        at_once = self.config.clips_at_once
        parts = [torch.stack(runs[start : start + at_once]) for start in range(0, len(runs), at_once)]
        return [tokens for part in parts for tokens in self.connector(self.tower(part), num_left)]

    def _embedded(self, row: Row, video: Float[Tensor, "M D"], st: Float[Tensor, "N D"]) -> "_Seen":
        """A row of embeddings: its text, its video and the given [ST] embeddings, each at its place."""
        place, device = row.video_place, video.device
        ids = torch.tensor(row.ids, device=device)
        is_st = torch.zeros_like(ids, dtype=torch.bool)
        is_st[list(row.st_places)] = True
        words = self.language.embed_tokens(ids.clamp(min=0))  # that of the video's place is not used
        words = words.masked_scatter(is_st[:, None], st.to(words.dtype))
        embeddings = torch.cat([words[:place], video.to(words.dtype), words[place + 1 :]])
        shift = video.shape[0] - 1
        told = [
            (index + shift * (index > place), at) for index, at in enumerate(row.ids) if index and row.is_scored[index]
        ]
        return _Seen(
            embeddings=embeddings,
            st_places=torch.tensor([index + shift * (index > place) for index in row.st_places], device=device),
            told_places=torch.tensor([index for index, _ in told], dtype=torch.long, device=device),
            told=torch.tensor([at for _, at in told], dtype=torch.long, device=device),
        )

    def _states(self, rows: list[Float[Tensor, "_ D"]]) -> Float[Tensor, "R S D"]:
        """The last, normalised states of rows, padded behind their ends; what stands in the padding means nothing.

        No mask is needed for that: a place sees none behind it, and rows are counted from their beginning.
        """
        return self.language(inputs_embeds=pad_sequence(rows, batch_first=True)).last_hidden_state

    def _scores(self, states: Float[Tensor, "R S D"], seen: list["_Seen"]) -> TextScores:
        """What the states just before the told ids say of them; each row counts as one, however long."""
        before = torch.cat([states[index, entry.told_places - 1] for index, entry in enumerate(seen)])
        return TextScores(
            logits=self.head(before).float(),
            targets=torch.cat([entry.told for entry in seen]),
            weights=torch.cat(
                [torch.full_like(entry.told, 1, dtype=torch.float32) / len(entry.told) for entry in seen]
            ),
            num_rows=len(seen),
        )

    def _require_fit(self, rows: list[Row], video_lengths: list[int]) -> None:
        """RequestError for a row longer than the model's positions."""
        most = self.config.language.max_len
        for index, (row, length) in enumerate(zip(rows, video_lengths, strict=True)):
            total = len(row.ids) - 1 + length
            if total > most:
                raise RequestError(
                    f"sentence {index} takes {total} positions, {length} of them for its video; the model has {most}; "
                    "shorten the sentence or take fewer frames"
                )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Seen:
    """A row on its way into the language model; places count the video's tokens."""

    embeddings: Float[Tensor, "S D"]
    st_places: Int[Tensor, " N"]
    told_places: Int[Tensor, " K"]
    told: Int[Tensor, " K"]


def draw(
    config: VideoChatConfig, text: ByteLevelText, generator: torch.Generator, prompt: PromptConfig | None = None
) -> VideoChat:
    """A model with random weights, for tests: matrices are normal, norms are ones, biases zeros."""
    with torch.device("meta"):
        model = VideoChat(config, text, prompt)
    model.to_empty(device=generator.device)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(0, INIT_STD, generator=generator)
            else:
                value.fill_(float("norm" in name and name.endswith("weight")))
    language.refresh_rotary(model.language)
    return model.eval()
