"""How many bytes a network takes: its weights, one pass, what a training keeps. Arithmetic on its shape alone.

Enters: a `ModelConfig` and what passes through at once (`Pass`). Leaves: bytes by part. Does not know tasks, files or
what a machine has. It follows what `transformer.py`, `nn/`, `pipeline/denoiser.py`, `decoding/` and `training/` really
allocate, and is held against counted allocations (tests/unit/model/test_memory.py): a change there shows here.

    always        weights (a training besides: gradients, states of the optimizers, the running average)
    in turn       one block, widest while its three feed-forward matrices are alive
                  the output table over the ids that are allowed, then choosing among them
    a training    instead of one block: what every block keeps for the way back

Letters as in `types.py`; M is the width of the feed-forward. Small tensors (norms, rotary tables, masks of one row) are
left out where something a hundred times larger stands beside them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dynin.diffusion.loss import piece_places
from dynin.model.config import ModelConfig
from dynin.nn.attention import EXPLICIT_MAX_SCORES

FLOAT = 4
"""Bytes of float32, in which logits, norms and sums are kept."""
INT4_GROUP = 32
"""Numbers of a row that share a scale in int4."""
STATE_BLOCK, STATE_LEAST, STATE_CODES = 256, 4096, 256
"""Of AdamW's states in 8 bits: numbers that share a scale, the fewest that are shortened, and what a code can be."""
PIECE_LOGITS, PIECE_LOGITS_ELSEWHERE = 2**20, 2**24
"""Logits that are chosen from together on a CPU, and on other devices, as in decoding/score.py; a test holds them
equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """What passes through the network at once."""

    num_rows: int
    """Rows of the batch, without those that guidance adds."""
    length: int
    """Positions of a row, padding included."""
    num_places: int
    """Positions of one row whose logits are asked for."""
    num_choices: int
    """Ids that are allowed there."""
    is_guided: bool = False
    """Whether every row passes a second time without its condition."""
    is_padded: bool = False
    """Whether some columns are not attended."""
    is_drawn: bool = False
    """Whether ids are drawn at a temperature, not the best taken."""
    is_by_entropy: bool = False
    """Whether places are chosen by the entropy of what could be there."""

    @property
    def num_branches(self) -> int:
        """Rows that pass, with those of guidance."""
        return self.num_rows * (2 if self.is_guided else 1)


def matrix_sizes(config: ModelConfig) -> tuple[tuple[int, int], ...]:
    """Rows and columns of the matrices of one block."""
    kv_dim = config.num_kv_heads * config.head_dim
    width, mlp = config.d_model, config.mlp_dim
    attention = ((width, width), (kv_dim, width), (kv_dim, width), (width, width))
    return (*attention, (mlp, width), (mlp, width), (width, mlp))


def num_parameters(config: ModelConfig) -> dict[str, int]:
    """Numbers by part: the two tables, the matrices of the blocks, the norms."""
    matrices = sum(rows * columns for rows, columns in matrix_sizes(config))
    return {
        "tables": 2 * config.num_rows * config.d_model,
        "matrices": config.num_layers * matrices,
        "norms": (2 * config.num_layers + 1) * config.d_model,
    }


def weight_bytes(config: ModelConfig, size: int, form: str = "") -> dict[str, int]:
    """Bytes of the weights by part.

    Args:
        size: Bytes of a number.
        form: int8, with a scale in float32 and a zero for each row of a matrix; int4, with two numbers for every 32 of
            a row; or empty.
    """
    count = num_parameters(config)
    matrices = count["matrices"] * size
    if form == "int8":
        matrices = count["matrices"] + config.num_layers * sum(rows for rows, _ in matrix_sizes(config)) * (FLOAT + 1)
    elif form == "int4":
        matrices = count["matrices"] // 2 + count["matrices"] // INT4_GROUP * 2 * size
    return {"tables": count["tables"] * size, "matrices": matrices, "norms": count["norms"] * size}


# --- one pass, nothing kept ------------------------------------------------------------------------------------------


def block_bytes(config: ModelConfig, work: Pass, size: int, form: str = "") -> int:
    """The most that one block holds at a time, its input included.

    While keys are turned:        input, normalised, queries, keys as made; in float32 two halves and their products
    while attention runs:         input, normalised, queries, keys, values, the outcome; the mask once for every query
    in the feed-forward:          input, sum, normalised; gate, which becomes the product, and up
    in int8:                      besides, the matrix that multiplies, turned back, or in float32 up before it is
                                  scaled, if that is more
    """
    width, mlp = config.d_model, config.mlp_dim
    share = config.num_kv_heads / config.num_heads
    turning = 2 if size == FLOAT else 2 + FLOAT
    masks = work.length * (1 + 1 / size) if work.is_padded else 0
    repeated = 0 if share == 1 else 2 * share * width
    widest = max(
        (3 + share * (1 + turning)) * width,
        (3 + turning) * width,
        6 * width + masks + repeated,
        3 * width + 2 * mlp,
    )
    tables = 2 * work.length * config.head_dim * FLOAT
    positions = work.num_branches * work.length
    extra = 0
    if form == "int8":
        extra = max(width * mlp, positions * mlp if size == FLOAT else 0) * size
    return round(positions * widest * size) + tables + extra


def head_bytes(config: ModelConfig, work: Pass, size: int) -> int:
    """The output table meets the wanted places: slices of it, which are no copies, give logits in its dtype."""
    places = work.num_branches * work.num_places
    return places * (config.d_model + work.num_choices) * size


def choice_bytes(work: Pass, size: int, *, is_cpu: bool = True) -> int:
    """Guiding and choosing (decoding/score.py): the logits of all places, and pieces of them in float32.

    as they are:    themselves in float32, unless they are; guided ones are new
    guided:         two of difference, product and sum; both branches in float32, unless they are
    drawn:          random bits, what they are mixed with, and the numbers made of them
    otherwise:      distances to the largest, which become exponentials in place; by entropy both

    Args:
        size: Bytes of a logit as the network gives it.
        is_cpu: Whether the network is on a CPU; other devices choose from larger pieces.
    """
    places = work.num_rows * work.num_places
    together = PIECE_LOGITS if is_cpu else PIECE_LOGITS_ELSEWHERE
    all_logits = work.num_branches * work.num_places * work.num_choices * size
    piece = min(places, max(1, together // work.num_choices)) * work.num_choices * FLOAT
    is_turned = size < FLOAT
    values = int(work.is_guided or is_turned)
    arrays = max(
        2 + 2 * is_turned if work.is_guided else 0,
        values + 3 if work.is_drawn else 0,
        values + 1 + work.is_by_entropy + work.is_drawn,
    )
    return all_logits + arrays * piece


# --- a training ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How a network is trained, as far as memory goes."""

    size: int = FLOAT
    """Bytes of a number in matrix products; sums and norms stay in float32."""
    rank: int = 0
    """Of adapters in float32 on the matrices of the blocks, the network itself being frozen in `size`; 0 trains all."""
    is_recomputed: bool = False
    """Whether blocks keep their inputs alone and run once more on the way back, one at a time."""
    is_adamw: bool = False
    """Whether AdamW moves the matrices of the blocks too, in place of Muon."""
    state_bits: int = 32
    """Of each number that AdamW remembers; Muon's stay in float32."""
    num_processes: int = 1
    """Processes that split what is held between them by rows (training/parallel.py)."""
    is_frugal: bool = False
    """Whether they give up the whole weights of a block after each use instead of once a step."""


def step_bytes(config: ModelConfig, work: Pass, how: Training) -> dict[str, int]:
    """What a step of a training takes besides what is held all the time, by part, at its fullest moment.

    Where blocks run once more, that moment is the end of the way there, the logits, or a block on the way back.
    """
    kept = _kept_bytes(config, work, how)
    matrices = num_parameters(config)["matrices"]
    rounded = matrices * how.size if how.size < FLOAT and not how.rank else 0
    positions = work.num_rows * work.length
    states = positions * config.d_model * FLOAT
    block = positions * (config.d_model * FLOAT + 2 * config.mlp_dim * how.size)
    if not how.is_recomputed:
        return {
            "kept of every block": config.num_layers * kept + 3 * states,
            "weights rounded for products": rounded,
            "logits and the way back": max(_head_back_bytes(config, work, how), block),
        }
    inputs = config.num_layers * states
    fullest = max(
        3 * states + rounded + _head_back_bytes(config, work, how),
        kept - states + block + rounded // config.num_layers,
    )
    return {"inputs of every block": inputs, "logits, or a block once more": fullest}


def _kept_bytes(config: ModelConfig, work: Pass, how: Training) -> int:
    """What one block keeps of a pass until gradients come back.

    A position keeps, in float32: both norms' inputs and outcomes; their scaled copies; queries, keys, values, what
    attention gave; and four vectors of the feed-forward. In a shorter type the scaled copies are made once for each of
    the five matrices that read them. Frozen norms keep no outcome, frozen matrices nothing, but adapters read the same
    in float32. Short rows keep their scores (nn/attention.py), longer ones do not.
    """
    width, mlp, length, size = config.d_model, config.mlp_dim, work.length, how.size
    if size == FLOAT:
        position = ((8 if how.rank else 10) * width + 4 * mlp) * FLOAT
    elif how.rank:
        position = 8 * width * FLOAT + 4 * width * size + mlp * (FLOAT + 3 * size)
    else:
        position = 4 * width * FLOAT + 9 * width * size + 4 * mlp * size
    if length * length <= EXPLICIT_MAX_SCORES:
        position += config.num_heads * length * (FLOAT if size == FLOAT else FLOAT + size)
    elif work.is_padded:
        position += length * size
    position += len(matrix_sizes(config)) * how.rank * FLOAT
    return work.num_rows * length * position


def _head_back_bytes(config: ModelConfig, work: Pass, how: Training) -> int:
    """The most that the loss holds (diffusion/loss.py); its stages follow each other.

    at a piece of the places:    their logits and what these are summed with, or their slopes and what these add to the
                                 rows; the allowed rows in a shorter type and their gradients; all states and theirs
    at the table:                the gradients of the rows, and of the whole table
    """
    places = work.num_rows * work.num_places
    piece = min(places, piece_places(work.num_choices, 0 if how.rank else config.d_model))
    logits = piece * work.num_choices * FLOAT
    rows = work.num_choices * config.d_model
    is_rounded = how.size < FLOAT and not how.rank
    rounded = rows * how.size if is_rounded else 0
    slopes = logits + (logits // 2 + rows * how.size if is_rounded else 0) + rows * FLOAT
    states = places * config.d_model * (2 * FLOAT + (how.size if is_rounded else 0))
    if how.rank:
        return 2 * logits + places * config.d_model * 2 * how.size
    table = config.num_rows * config.d_model * FLOAT
    return states + rows * FLOAT + max(rounded + max(2 * logits, slopes), table)


def held_bytes(config: ModelConfig, how: Training) -> Mapping[str, int]:
    """What one process of a training holds all the time, by part.

    Source:
        training/optim.py: Muon keeps one number for each of the matrices', AdamW two for each other one.
    """
    count = num_parameters(config)
    total = sum(count.values())
    states = sum(_adamw_bytes(size, how.state_bits) for size in _adamw_sizes(config, how))
    if how.rank:
        held = {
            "weights, frozen": total * how.size,
            "adapters": _adapter_bytes(config, how),
            "their running average": _adapter_bytes(config, how),
            "their gradients": _adapter_bytes(config, how),
            "states of AdamW": states,
        }
    else:
        muon = 0 if how.is_adamw else count["matrices"] * FLOAT
        held = {
            "weights": total * FLOAT,
            "running average": total * FLOAT,
            "gradients": total * FLOAT,
            "states of AdamW" if how.is_adamw else "states of Muon and AdamW": muon + states,
        }
    return {name: -(-value // how.num_processes) for name, value in held.items()}


def whole_bytes(config: ModelConfig, how: Training) -> Mapping[str, int]:
    """What one of several processes holds besides, while weights and gradients are put together (training/parallel.py).

    once a step     all weights from the first pass on; the others' shares of all gradients until the last batch has
                    gone back
    frugal          both tables, which lie outside the blocks; a block, and the one that arrives meanwhile; a block's
                    gradients as they are made, as they travel and as they arrive
    """
    if how.num_processes == 1:
        return {}
    count = num_parameters(config)
    size = how.size if how.rank else FLOAT
    adapters = _adapter_bytes(config, how)
    if not how.is_frugal:
        learned = adapters if how.rank else sum(count.values()) * FLOAT
        weights = sum(count.values()) * size + adapters
        gradients = learned - learned // how.num_processes
    else:
        block = (count["matrices"] * size + adapters) // config.num_layers
        learned = (adapters if how.rank else count["matrices"] * FLOAT) // config.num_layers
        weights, gradients = count["tables"] * size + 2 * block, 3 * learned
    return {"weights put together": weights, "gradients put together": gradients}


def _adapter_bytes(config: ModelConfig, how: Training) -> int:
    """Bytes of the adapters of all layers, in float32."""
    return config.num_layers * how.rank * sum(rows + columns for rows, columns in matrix_sizes(config)) * FLOAT


def _adamw_sizes(config: ModelConfig, how: Training) -> Iterator[int]:
    """Numbers in each tensor that AdamW moves."""
    sizes = matrix_sizes(config) * config.num_layers
    if how.rank:
        for rows, columns in sizes:
            yield from (how.rank * columns, rows * how.rank)
        return
    yield from (config.num_rows * config.d_model,) * 2
    yield from (config.d_model,) * (2 * config.num_layers + 1)
    if how.is_adamw:
        yield from (rows * columns for rows, columns in sizes)


def _adamw_bytes(size: int, bits: int) -> int:
    """Both moments of a tensor; in 8 bits with a scale for every block and a table of what the codes mean.

    Source:
        torchao, `optim/adam.py::_AdamBase._new_buffer`: short tensors, and such as leave a block unfilled, stay as
        they are.
    """
    if bits == 32 or size < STATE_LEAST or size % STATE_BLOCK:
        return 2 * size * FLOAT
    return 2 * (size + (size // STATE_BLOCK + STATE_CODES) * FLOAT)
