"""Dynin: requests to results. The only module that knows every stage of the flow.

Request --media, route--> values and a task --tokenizers--> codes --sequence--> ids with hidden targets
    --decoding, model--> ids --sequence--> codes --tokenizers--> values --> Result
"""

import re
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace
from typing import Unpack

import torch
from jaxtyping import Int
from torch import Tensor

from dynin.decoding.decoder import Decoded, ParallelDecoder
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.trace import Step
from dynin.errors import ConfigError, RequestError
from dynin.media.image import to_pil
from dynin.model.arranged import arranged
from dynin.model.transformer import Transformer
from dynin.pipeline.denoiser import Effort, PolicyDenoiser
from dynin.pipeline.graphs import StepGraphs, can_record
from dynin.pipeline.job import Easel, Job
from dynin.pipeline.picture_size import growth, largest_px, lengths_at, require_size
from dynin.pipeline.policies import POLICIES, adjust, for_redo, limit, policy_of, require_steps
from dynin.pipeline.presets import NONE, PRESETS, Presets
from dynin.pipeline.redo import Opened, RedoBox, parse_redo
from dynin.pipeline.request import Request, Wishes, check_correctable, read_value
from dynin.pipeline.result import ENDED, HIDDEN, Result, Snapshot
from dynin.pipeline.route import choose
from dynin.sequence.layout import Assembler, Sequence
from dynin.sequence.parse import num_before_end
from dynin.sequence.task import TABLES, Task
from dynin.tokenizers.bundle import Tokenizers, Value
from dynin.types import Modality
from dynin.vocabulary import Vocabulary

THINK, NO_THINK = " /think", " /no_think"
"""What follows a text prompt whose answer is text."""
MIDDLE_DOT = "\u00b7"

Observer = Callable[[Snapshot], None]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dynin:
    """A model with everything it needs to turn requests into results."""

    model: Transformer
    tokenizers: Tokenizers
    vocabulary: Vocabulary
    tasks: Mapping[str, Task]
    policies: Mapping[str, DecodingPolicy]
    """By modality, or by task and modality; see `policies.policy_of`. These are what the preset "exact" means."""
    presets: Presets = NONE
    """The others, and which is taken where a request names none."""
    graphs: StepGraphs | None = None
    """Recorded passes over the network, for requests that remember keys and values; None records nothing."""

    def __post_init__(self) -> None:
        """Check that recordings are of this network."""
        if self.graphs is not None and self.graphs.model is not self.model:
            raise ConfigError("graphs record passes of another network; make them of this one, see `recorded`")

    @classmethod
    def assemble(cls, model: Transformer, tokenizers: Tokenizers, vocabulary: Vocabulary) -> "Dynin":
        """A model with the task table and the policies of its vocabulary."""
        return cls(
            model=model.eval().requires_grad_(False),
            tokenizers=tokenizers,
            vocabulary=vocabulary,
            tasks=TABLES[vocabulary.name],
            policies=POLICIES[vocabulary.name],
            presets=PRESETS[vocabulary.name],
        )

    def recorded(self, *, max_bytes: int = 4 * 2**30, compiles: bool = False) -> "Dynin":
        """The same model, whose passes with remembered keys and values are recorded once and replayed.

        A bucket of shapes is recorded when it first comes up, so that this pays for a model that stays, and for one
        thread at a time. Requests whose presets remember nothing, such as `exact`, go as before.

        Args:
            max_bytes: Largest memory for keys and values of recorded passes.
            compiles: Whether layers go through `torch.compile`, once for each shape.

        Raises:
            ConfigError: If the device of the network records nothing.
        """
        if not can_record(self.model):
            raise ConfigError(
                f"the network is on {self.model.embed.weight.device}, which records no passes; load it on a GPU "
                '(device="cuda"), or use it as it is'
            )
        return replace(self, graphs=StepGraphs(self.model, max_bytes=max_bytes, compiles=compiles))

    def arranged(self) -> "Dynin":
        """The same model with its matrices laid out for a processor once, not at every product; see `model.arranged`.

        It takes the time of reading the weights, and the memory of those rows of the output table that requests ask
        for. It pays from a width of some hundreds on, and most in bfloat16. Such a model is run, not saved or trained.

        Raises:
            RequestError: If the network is not on a processor with oneDNN in float32 or bfloat16.
        """
        return replace(self, model=arranged(self.model))

    def generate(
        self, prompt: str | None = None, *, on_step: Observer | None = None, **wishes: Unpack[Wishes]
    ) -> Result:
        """Make what follows from what is given.

        Args:
            prompt: What to make, a question, or an instruction.
            on_step: Called after every network call with the target as it is then.
            wishes: image, audio, video, to, seed, steps, guidance, preset, thinking, redo, style, size, trace; see
                `Request`.

        Raises:
            RequestError: If the request is ambiguous, impossible or too long; the message lists the choices.
            MediaError: If something given cannot be read.
        """
        return self.run(Request.of(prompt, wishes), on_step)

    def run(self, request: Request, on_step: Observer | None = None) -> Result:
        """Fulfil one request."""
        return self.run_together([request], on_step)[0]

    def run_together(self, requests: Rows[Request], on_step: Observer | None = None) -> list[Result]:
        """Fulfil requests of one task, with equal wishes but for seeds, in one batch.

        Each gets what it gets alone: every request has its own random numbers.

        Args:
            on_step: Sees the first request only.
        Raises:
            RequestError: If a request cannot be fulfilled, or the requests differ in task, steps, guidance, preset or
                size.
        """
        started = time.monotonic()
        jobs = [self.prepare(request) for request in requests]
        keys = {
            (job.task.name, job.request.steps, job.request.guidance, job.request.preset, job.request.size)
            for job in jobs
        }
        if len(keys) != 1 or (len(jobs) > 1 and any(job.redo for job in jobs)):
            raise RequestError(f"requests of one batch differ: {sorted(map(str, keys))}; run them one by one")
        traces: list[list[Snapshot]] = [[] for _ in jobs]
        denoiser = PolicyDenoiser(self.model, graphs=self.graphs)
        decoded = self._decode(jobs, denoiser, self.watch(jobs, traces, on_step))
        results = [self.finish(job, row, decoded, denoiser.effort(row)) for row, job in enumerate(jobs)]
        seconds = time.monotonic() - started
        return [
            replace(result, seconds=seconds, trace=kept(job, trace))
            for job, result, trace in zip(jobs, results, traces, strict=True)
        ]

    # ---- request to row ---------------------------------------------------------------------------------------------

    def prepare(self, request: Request) -> Job:
        """Read, route, encode, lay out."""
        redo = parse_redo(request.redo) if isinstance(request.redo, str) else request.redo
        if redo is not None:
            check_correctable(redo, request)
        values = request.values(self.tokenizers.video.num_frames)
        original = None
        if redo is not None:
            source = values.pop(redo.modality, None) if redo.source is None and redo.modality != Modality.TEXT else None
            original = source if source is not None else read_value(redo.modality, redo.source)
        to = request.to or (str(redo.modality) if redo else None)
        task = choose(self.tasks, values.keys(), to)
        if redo is not None and task.targets != (redo.modality,):
            raise RequestError(f"a part of {redo.modality} is to be made again, but {task.name} makes {to}; drop `to`")
        if request.thinking is not None and task.shows_reasoning is None:
            raise RequestError(f"{task.name} has no reasoning to show or hide; leave `thinking` (--think) out")
        self._require_style(task, request.style)
        cell_px = self.tokenizers.image.downsample
        if request.size is not None:
            require_size(task, request.size, cell_px)
        self.tokenizers.prepare([*task.conditions, *task.targets])  # not after all the work, if one is missing
        if Modality.TEXT in task.conditions:
            values[Modality.TEXT] = _prompt(task, values.get(Modality.TEXT), request.thinking)
        given_px = request.size or task.given_px
        given = {modality: self.tokenizers.encode(modality, value, given_px) for modality, value in values.items()}
        redo = replace(redo, size_px=request.size) if isinstance(redo, RedoBox) else redo
        opened = redo.open(self.tokenizers, original) if redo is not None and original is not None else None
        sequence = self._lay_out(task, given, opened, lengths_at(task, request.size, cell_px))
        asked = {modality: self._policy(request, task, modality) for modality in task.targets}
        if request.steps is not None:
            require_steps(request.steps, asked, sequence.spans)
        chosen = {
            modality: adjust(
                policy,
                steps=request.steps,
                guidance=request.guidance,
                growth=growth(task, request.size, cell_px) if modality == Modality.IMAGE else 1.0,
            )
            for modality, policy in asked.items()
        }
        if opened is not None:
            chosen = {modality: for_redo(policy) for modality, policy in chosen.items()}
        policies = self._fit(sequence, chosen, is_sized=request.size is not None)
        return Job(request=request, sequence=sequence, policies=policies, redo=redo, original=original)

    def _policy(self, request: Request, task: Task, modality: Modality) -> DecodingPolicy:
        """What the request's preset says of a target.

        One that names none gets the default of what was measured, whole targets of the usual size; where it says how
        many steps it wants, another size or a part to be made again, the exact way.

        Raises:
            RequestError: If the model has no such preset.
        """
        is_usual = growth(task, request.size, self.tokenizers.image.downsample) == 1
        is_measured = is_usual and request.steps is None and request.redo is None
        preset = request.preset or (self.presets.default(task.name, modality) if is_measured else "exact")
        return self.presets.policy(preset, task.name, modality) or policy_of(self.policies, task.name, modality)

    def _require_style(self, task: Task, style: str | None) -> None:
        """RequestError for a style that nothing will speak in, before anything slow."""
        if style is None:
            return
        if Modality.SPEECH not in task.targets:
            raise RequestError(f"{task.name} makes no speech; leave `style` (--style) out")
        self.tokenizers.require_style(style)

    def _lay_out(
        self, task: Task, given: Mapping[Modality, str | Tensor], opened: Opened | None, lengths: Mapping[str, int]
    ) -> Sequence:
        """The row of ids; with a redo, the whole original as target and only its open codes hidden."""
        assembler = self._assembler()
        if opened is None:
            return assembler.assemble(task, given, lengths=lengths)
        modality = task.targets[0]
        block = task.lengths[modality]
        is_flexible = bool(task.ends.get(modality))
        count = opened.codes.numel()
        length = -(-(count + 1) // block) * block if is_flexible else count
        made: Tensor | str = opened.codes
        sequence = assembler.assemble(task, given, {modality: made}, {modality: length})
        start = sequence.span(modality, is_target=True).start
        ids = sequence.ids.clone()
        ids[start : start + count][opened.is_open] = self.vocabulary["mask"]
        return replace(sequence, ids=ids)

    def _fit(
        self, sequence: Sequence, policies: Mapping[Modality, DecodingPolicy], *, is_sized: bool
    ) -> dict[Modality, DecodingPolicy]:
        """The policies with canvases that grow only as far as the model reaches; RequestError if they cannot start."""
        longest, length = self.model.config.max_len, len(sequence.ids)
        if length > longest:
            targets = sum(span.stop - span.start for span in sequence.spans if span.is_target)
            side_px = largest_px(sequence, longest, self.tokenizers.image.downsample) if is_sized else 0
            advice = f"give a size of at most {side_px}" if side_px else "shorten the prompt, the sound or the text"
            raise RequestError(
                f"the request takes {length - targets} positions and what is made {targets} more, but the model's "
                f"length is {longest}; {advice}"
            )
        room = longest - length
        return {
            span.modality: limit(policies[span.modality], span.stop - span.start + room)
            for span in sequence.spans
            if span.is_target
        }

    def _assembler(self) -> Assembler:
        return Assembler(vocabulary=self.vocabulary, encode_text=self.tokenizers.text.encode)

    # ---- row to row -------------------------------------------------------------------------------------------------

    def easel(self) -> Easel:
        """What puts prepared requests on canvases, on the device of the network."""
        return Easel(self.vocabulary, self.tokenizers, self.model.embed.weight.device)

    def _decode(self, jobs: Rows[Job], denoiser: PolicyDenoiser, observer: Callable[[Step], None] | None) -> Decoded:
        """Fill the hidden places of all rows."""
        work = self.easel().lay(jobs)
        decoder = ParallelDecoder(denoiser, self.vocabulary["mask"])
        return decoder.run(work.canvas, work.segments, generator=work.generators, observer=observer)

    # ---- row to result ----------------------------------------------------------------------------------------------

    def finish(self, job: Job, row: int, decoded: Decoded, effort: Effort) -> Result:
        """Cut the targets out, decode them, put a redone part into its original."""
        values: dict[Modality, Value] = {}
        num_tokens = 0
        for modality in job.task.targets:
            ids = decoded.ids[row][decoded.is_target[str(modality)][row]].cpu()
            count = num_before_end(self.vocabulary, job.task, modality, ids)
            num_tokens += min(count + 1, len(ids))
            codes = self.vocabulary.ids_to_codes(modality, ids[:count])
            if job.redo is not None and job.original is not None:
                values[modality] = job.redo.merge(self.tokenizers, job.original, codes)
            else:
                generator = torch.Generator().manual_seed(job.request.seed)
                values[modality] = self.tokenizers.decode(modality, codes, generator, job.request.style)
        thinking, text = _split_thinking(values.get(Modality.TEXT))
        picture = values.get(Modality.IMAGE)
        return Result(
            task=job.task.name,
            text=text,
            thinking=thinking,
            image=to_pil(picture) if isinstance(picture, Tensor) else None,
            audio=values.get(Modality.SPEECH),  # type: ignore[arg-type]
            video=values.get(Modality.VIDEO),  # type: ignore[arg-type]
            finish_reason=decoded.finish_reasons[row],
            seed=job.request.seed,
            num_forwards=effort.num_passes,
            num_columns=effort.num_columns,
            num_tokens=num_tokens,
            seconds=0.0,
        )

    # ---- watching ---------------------------------------------------------------------------------------------------

    def watch(
        self, jobs: Rows[Job], traces: list[list[Snapshot]], on_step: Observer | None
    ) -> Callable[[Step], None] | None:
        """An observer of the decoder that keeps snapshots where they are wanted; None where nobody looks."""
        if on_step is None and not any(job.request.trace for job in jobs):
            return None

        def observe(step: Step) -> None:
            for row, job in enumerate(jobs):
                is_seen = on_step is not None and row == 0
                if not (job.request.trace or is_seen):
                    continue
                snapshot = self._snapshot(job, row, step)
                traces[row].append(snapshot)
                if on_step is not None and row == 0:
                    on_step(snapshot)

        return observe

    def _snapshot(self, job: Job, row: int, step: Step) -> Snapshot:
        """One row of a step of the decoder."""
        modality = Modality(step.segment)
        ids = step.ids[row]
        count = num_before_end(self.vocabulary, job.task, modality, ids)
        is_hidden = ids == self.vocabulary["mask"]
        codes = torch.full_like(ids, ENDED)
        start = self.vocabulary.range_of(modality).start
        codes[:count] = (ids[:count] - start).masked_fill(is_hidden[:count], HIDDEN)
        policy = job.policies[modality]
        steps = policy.block_steps(policy.max_len or len(ids))
        return Snapshot(
            modality=modality,
            num_forwards=step.index + 1,
            num_planned=max(step.index + 1, steps * (step.block + 1)),
            codes=codes,
            is_new=step.is_committed[row],
            is_remasked=step.is_remasked[row],
            text=self._partial_text(codes) if modality == Modality.TEXT else None,
        )

    def _partial_text(self, codes: Int[Tensor, " N"]) -> str:
        """What is decided of a text, a dot for each hidden place."""
        parts: list[str] = []
        known: list[int] = []
        for code in [*codes[codes != ENDED].tolist(), HIDDEN]:
            if code != HIDDEN:
                known.append(code)
                continue
            parts.append(self.tokenizers.text.decode(known) + MIDDLE_DOT)
            known = []
        return "".join(parts).removesuffix(MIDDLE_DOT)


def kept(job: Job, snapshots: list[Snapshot]) -> tuple[Snapshot, ...] | None:
    """The trace of a result: what was seen, where a request asked for it."""
    return tuple(snapshots) if job.request.trace else None


def _prompt(task: Task, text: Value | None, thinking: bool | None) -> str:
    """The text of a task: the given one, or the row's question; with the switch for reasoning where it belongs."""
    if text is None:
        return task.question
    assert isinstance(text, str)
    is_shown = task.shows_reasoning if thinking is None else thinking
    is_as_it_is = thinking is None and not task.shows_reasoning
    if task.shows_reasoning is None or is_as_it_is or text.endswith((THINK, NO_THINK)):
        return text
    return text + (THINK if is_shown else NO_THINK)


def _split_thinking(value: Value | None) -> tuple[str | None, str | None]:
    """The reasoning and the answer of a text; reasoning that does not end leaves an empty answer."""
    if not isinstance(value, str):
        return None, None
    found = re.match(r"\s*<think>(.*?)(?:</think>(.*))?$", value, re.DOTALL)
    if found is None:
        return None, value.strip()
    return found.group(1).strip(), (found.group(2) or "").strip()
