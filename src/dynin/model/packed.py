"""Several batches of sequences in one pass, without padding, and states only where they are asked for.

Enters: batches of ids, of any numbers and lengths, and the places of each that count. Leaves: the normalised states at
those places. Does not know why they are asked for, nor the output table.

    batch 1  (2, 5)   a a a a a b b b b b  -+                      every product of matrices sees all places as one
    batch 2  (1, 3)   c c c                 +- one row of places   list; attention alone works batch by batch, those
    batch 3  (1, 5)   d d d d d            -+                      of equal length and no padding together
                            x   x       x      x                   last layer: keys and values of all places, the rest
                                                                   only at those asked for

So nothing is computed for padding between requests, no mask is dense, and the last layer costs what its places cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dynin.model.transformer import Block, Transformer
from dynin.nn.attention import attention, usable
from dynin.nn.rope import rotary_table, rotate


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Sequences of one length, and where their states are wanted."""

    ids: Int[Tensor, "B S"]
    attend: Bool[Tensor, "B S"] | None
    """False at padding; None where there is none."""
    rows: Int[Tensor, " K"]
    """Flat positions b * S + s."""
    counts: tuple[int, ...] | None = None
    """How many of `rows` lie in each sequence, where they ascend; None where nobody counted, which costs the last layer
    its savings in batches of more than one sequence."""


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Batches that attention treats together."""

    shape: tuple[int, int]
    seen: Bool[Tensor, "B S"] | None
    rows: Int[Tensor, " K"]
    """Flat positions in the group."""
    layout: Int[Tensor, "B Q"] | None
    """Which entries of `rows` each sequence asks for, the last again where others ask for more; None where every place
    goes through the last layer."""
    source: Int[Tensor, " K"] | None
    """Where each entry of `rows` lies in `layout`; None where they lie there in order."""

    def asked(self) -> Int[Tensor, "B Q"]:
        """Flat positions in the group that go through the last layer, as many of each sequence."""
        if self.layout is None:
            return torch.arange(self.shape[0] * self.shape[1], device=self.rows.device).view(self.shape)
        return self.rows[self.layout]

    def mix(
        self, query: Float[Tensor, "M H E"], key: Float[Tensor, "N G E"], value: Float[Tensor, "N G E"]
    ) -> Float[Tensor, "M H E"]:
        """Attention of as many places of each sequence to all of theirs."""
        queries = query.unflatten(0, (self.shape[0], -1))
        keys, values = key.unflatten(0, self.shape), value.unflatten(0, self.shape)
        return attention(queries, keys, values, self.seen).flatten(0, 1)

    def pick(self, values: Shaped[Tensor, "M *rest"]) -> Shaped[Tensor, "K *rest"]:
        """Those of `rows` of what belongs to `asked`."""
        if self.layout is None:
            return values[self.rows]
        return values if self.source is None else values[self.source]


def states(model: Transformer, batches: Sequence[Batch]) -> list[Float[Tensor, "K D"]]:
    """The normalised states at the places of each batch, ready for the output table.

    A place gets what `Transformer.hidden` gives it, up to rounding, whatever batches are beside its own.
    """
    order = sorted(range(len(batches)), key=lambda at: (batches[at].attend is not None, batches[at].ids.shape[1]))
    groups = _groups([batches[at] for at in order])
    ids = torch.cat([batches[at].ids.flatten() for at in order])
    head_dim, theta = model.config.head_dim, model.config.rope_theta
    longest = rotary_table(max(group.shape[1] for group in groups), head_dim, theta, ids.device)
    table = torch.cat([longest[:, : group.shape[1]].repeat(1, group.shape[0], 1) for group in groups], dim=1)
    x = model.embed(ids)[None]  # 1 N D

    def mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _mix(groups, query, key, value)

    for block in list(model.blocks)[:-1]:
        x = block(x, table, None, mix)
    x = model.norm(_last_layer(model, x, table, groups))[0]
    found: list[Tensor] = [x] * len(batches)
    for at, part in zip(order, x.split([len(batches[at].rows) for at in order]), strict=True):
        found[at] = part
    return found


def only_asked(batch: Batch) -> Batch:
    """A batch without the sequences of which nothing is asked, where that was counted."""
    if batch.counts is None or 0 not in batch.counts or not any(batch.counts):
        return batch
    device, length = batch.ids.device, batch.ids.shape[1]
    kept = [at for at, count in enumerate(batch.counts) if count]
    counts = tuple(batch.counts[at] for at in kept)
    gap = torch.tensor([(old - new) * length for new, old in enumerate(kept)]).repeat_interleave(torch.tensor(counts))
    index = torch.tensor(kept, device=device)
    attend = None if batch.attend is None else batch.attend[index]
    return Batch(batch.ids[index], attend, batch.rows - gap.to(device), counts)


def _groups(batches: Sequence[Batch]) -> list[_Group]:
    """Neighbours of equal length and no padding as one."""
    groups = []
    start = 0
    while start < len(batches):
        stop = start + 1
        first = batches[start]
        if first.attend is None:
            while stop < len(batches) and batches[stop].attend is None and _length(batches[stop]) == _length(first):
                stop += 1
        groups.append(_group(batches[start:stop]))
        start = stop
    return groups


def _length(batch: Batch) -> int:
    return batch.ids.shape[1]


def _group(batches: Sequence[Batch]) -> _Group:
    """Batches of equal length as one."""
    number, length = sum(len(batch.ids) for batch in batches), _length(batches[0])
    offset = 0
    rows = []
    counts: list[int] | None = []
    for batch in batches:
        rows.append(batch.rows + offset if offset else batch.rows)
        offset += batch.ids.numel()
        given = (len(batch.rows),) if len(batch.ids) == 1 else batch.counts
        counts = None if counts is None or given is None else [*counts, *given]
    layout, source = _lay_out(counts, rows[0].device)
    return _Group((number, length), usable(batches[0].attend), torch.cat(rows), layout, source)


def _lay_out(counts: list[int] | None, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Entries of a list as rows of equal length, and the way back; see `_Group`."""
    if counts is None or min(counts) == 0:
        return None, None
    widest, total = max(counts), sum(counts)
    if widest == min(counts):
        return torch.arange(total, device=device).view(len(counts), widest), None
    number = torch.tensor(counts)
    start = number.cumsum(0) - number
    slot = torch.arange(widest)
    layout = start[:, None] + torch.minimum(slot[None], number[:, None] - 1)
    owner = torch.arange(len(counts)).repeat_interleave(number)
    source = owner * widest + torch.arange(total) - start[owner]
    return layout.to(device), source.to(device)


def _mix(groups: Sequence[_Group], query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "1 N H E"]:
    """Attention, group by group."""
    sizes = [group.shape[0] * group.shape[1] for group in groups]
    parts = zip(groups, query[0].split(sizes), key[0].split(sizes), value[0].split(sizes), strict=True)
    mixed = [group.mix(queries, keys, values) for group, queries, keys, values in parts]
    return torch.cat(mixed)[None]


def _last_layer(
    model: Transformer, x: Float[Tensor, "1 N D"], table: Float[Tensor, "2 N half"], groups: Sequence[_Group]
) -> Float[Tensor, "1 K D"]:
    """The last layer at the places asked for, those of one group behind those of another."""
    block: Block = model.blocks[len(model.blocks) - 1]  # type: ignore[assignment]
    layer = block.attention
    sizes = [group.shape[0] * group.shape[1] for group in groups]
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    normed = block.attention_norm(x)
    key = rotate(layer.key(normed).unflatten(-1, (-1, layer.head_dim)), table)[0]  # N G E
    value = layer.value(normed).unflatten(-1, (-1, layer.head_dim))[0]
    asked = [group.asked() for group in groups]
    places = torch.cat([part.flatten() + start for part, start in zip(asked, starts, strict=True)])
    query = layer.query(normed[:, places]).unflatten(-1, (-1, layer.head_dim))
    query = rotate(query, table[:, places])[0]  # M H E
    queries_of = query.split([part.numel() for part in asked])
    parts = zip(groups, queries_of, key.split(sizes), value.split(sizes), strict=True)
    mixed = [group.pick(group.mix(queries, keys, values).flatten(1)) for group, queries, keys, values in parts]
    del normed, key, value, query, queries_of, parts  # no longer needed, and the feed-forward is wide
    chosen = torch.cat([group.rows + start for group, start in zip(groups, starts, strict=True)])
    x = x[:, chosen] + layer.output(torch.cat(mixed)[None])
    return x + block.mlp(block.mlp_norm(x))
