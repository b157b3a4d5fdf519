"""Parts of SAM2 as `transformers` has them, with less around the same products: for networks that learn no more.

Enters: a part of the library's network. Leaves: a module that takes its place: the same weights by the same names, the
same arguments, the same values but for rounding. Does not know which parts a network has: `virst.frozen` does.

Small networks spend more time between their products than in them. What falls away: tables of angles made anew for
each frame and repeated for each memory, pairs turned by four operations where a complex product does it, the choice of
a kernel for each attention, and weights of attention that the library makes and drops.

Source:
    `transformers` 5.24: `Sam2MultiScaleAttention`, `Sam2SinePositionEmbedding`, `Sam2VideoMemoryAttention`,
    `Sam2VideoTwoWayTransformer`, `Sam2VideoMaskDecoder`.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F


class PooledAttention(nn.Module):
    """Attention within windows of the image encoder; at the start of a stage queries are pooled."""

    def __init__(self, part: Any) -> None:
        """Take the weights of the library's part."""
        super().__init__()
        self.qkv, self.proj = part.qkv, part.proj
        self.num_heads, self.stride = part.num_attention_heads, part.query_stride

    def forward(self, hidden_states: Float[Tensor, "B Y X C"], **unused: object) -> Float[Tensor, "B y x D"]:
        """What every query finds in its window."""
        _, rows, columns, _ = hidden_states.shape
        query, key, value = self.qkv(hidden_states).chunk(3, dim=-1)
        if self.stride:
            query = F.max_pool2d(query.permute(0, 3, 1, 2), kernel_size=self.stride, stride=self.stride)
            query = query.permute(0, 2, 3, 1)
            rows, columns = query.shape[1:3]
        found = attend(query.flatten(1, 2), key.flatten(1, 2), value.flatten(1, 2), self.num_heads)
        return self.proj(found.unflatten(1, (rows, columns)))


class RememberedPosition(nn.Module):
    """Position codes of the image encoder by size of map, each made once."""

    def __init__(self, part: nn.Module) -> None:
        """What makes them."""
        super().__init__()
        self._make: Callable[..., Tensor] = part.forward
        self._made: dict[tuple[object, ...], Tensor] = {}

    def forward(
        self, shape: torch.Size, device: torch.device | str, dtype: torch.dtype, mask: Tensor | None = None
    ) -> Float[Tensor, "B D Y X"]:
        """The code of a map; one that has a mask is made anew."""
        if mask is not None:
            return self._make(shape, device, dtype, mask)
        key = (tuple(shape[1:]), str(device), dtype)
        if key not in self._made:
            self._made[key] = self._make(torch.Size((1, *shape[1:])), device, dtype)
        return self._made[key].expand(shape[0], -1, -1, -1)


class MemoryAttention(nn.Module):
    """Cells look at each other, then at memories and pointers, with queries and keys turned by row and column."""

    turn: Float[Tensor, "1 P E 2"]

    def __init__(self, part: Any) -> None:
        """Take the weights of the library's part."""
        super().__init__()
        self.layers, self.layer_norm = part.layers, part.layer_norm
        cosines, sines = part.rotary_emb(part.layer_norm.weight, part.position_ids)  # 1 P 2E, each value twice
        turn = torch.stack((cosines[..., 0::2], sines[..., 0::2]), dim=-1)
        self.register_buffer("turn", turn, persistent=False)

    def forward(
        self,
        current_vision_features: Float[Tensor, "P B D"],
        memory: Float[Tensor, "S B C"],
        current_vision_position_embeddings: Float[Tensor, "P #B D"],
        memory_posision_embeddings: Float[Tensor, "S B C"],
        num_object_pointer_tokens: int = 0,
    ) -> Float[Tensor, "1 B P D"]:
        """Cells after a look; the names of arguments are the library's."""
        x = (current_vision_features + 0.1 * current_vision_position_embeddings).transpose(0, 1)
        values = memory.transpose(0, 1)
        keys = values + memory_posision_embeddings.transpose(0, 1)
        num_placed = keys.shape[1] - num_object_pointer_tokens
        turn = torch.view_as_complex(self.turn.float())
        for layer in self.layers:
            part, y = layer.self_attn, layer.layer_norm1(x)
            heads = part.num_attention_heads
            query, key = turned(part.q_proj(y), turn, heads), turned(part.k_proj(y), turn, heads)
            x = x + part.o_proj(attend(query, key, part.v_proj(y), heads))
            part, y = layer.cross_attn_image, layer.layer_norm2(x)
            heads = part.num_attention_heads
            key = part.k_proj(keys)
            key = torch.cat((turned(key[:, :num_placed], turn, heads), key[:, num_placed:]), dim=1)
            x = x + part.o_proj(attend(turned(part.q_proj(y), turn, heads), key, part.v_proj(values), heads))
            x = x + layer.linear2(layer.activation(layer.linear1(layer.layer_norm3(x))))
        return self.layer_norm(x)[None]


class TwoWayTransformer(nn.Module):
    """Prompts and cells of the mask decoder look at each other in turn."""

    def __init__(self, part: Any) -> None:
        """Take the weights of the library's part."""
        super().__init__()
        self.layers = part.layers
        self.final_attn_token_to_image = part.final_attn_token_to_image
        self.layer_norm_final_attn = part.layer_norm_final_attn

    def forward(
        self,
        point_embeddings: Float[Tensor, "B R N D"],
        image_embeddings: Float[Tensor, "BR D I J"],
        image_positional_embeddings: Float[Tensor, "BR D I J"],
        attention_similarity: None = None,
        target_embedding: None = None,
        **unused: object,
    ) -> tuple[Float[Tensor, "B R N D"], Float[Tensor, "BR 1 P D"]]:
        """Both after their looks; the names of arguments are the library's, the last two are never used here."""
        points = point_embeddings.flatten(0, 1)
        places = image_positional_embeddings.flatten(2).transpose(1, 2)
        queries, keys = points, image_embeddings.flatten(2).transpose(1, 2)
        for layer in self.layers:
            if layer.skip_first_layer_pe:
                queries = _attended(layer.self_attn, queries, queries, queries)
            else:
                placed = queries + points
                queries = queries + _attended(layer.self_attn, placed, placed, queries)
            queries = layer.layer_norm1(queries)
            seen = keys + places
            queries = queries + _attended(layer.cross_attn_token_to_image, queries + points, seen, keys)
            queries = layer.layer_norm2(queries)
            queries = layer.layer_norm3(queries + layer.mlp(queries))
            keys = keys + _attended(layer.cross_attn_image_to_token, seen, queries + points, queries)
            keys = layer.layer_norm4(keys)
        found = _attended(self.final_attn_token_to_image, queries + points, keys + places, keys)
        queries = self.layer_norm_final_attn(queries + found)
        return queries.unflatten(0, point_embeddings.shape[:2]), keys[:, None]


class MaskDecoder(nn.Module):
    """Prompts and cells to masks; those of the tokens that are asked for, and no other."""

    def __init__(self, part: Any) -> None:
        """Take the weights of the library's part."""
        super().__init__()
        for name, child in part.named_children():
            setattr(self, name, child)
        self.num_mask_tokens = part.num_mask_tokens
        self.dynamic_multimask_via_stability = False

    def forward(
        self,
        image_embeddings: Float[Tensor, "B D I J"],
        image_positional_embeddings: Float[Tensor, "B D I J"],
        sparse_prompt_embeddings: Float[Tensor, "B 1 N D"],
        dense_prompt_embeddings: Float[Tensor, "B D I J"],
        multimask_output: bool,
        high_resolution_features: list[Tensor],
        **unused: object,
    ) -> tuple[Float[Tensor, "B 1 M y x"], Float[Tensor, "B 1 M"], Float[Tensor, "B 1 M D"], Float[Tensor, "B 1 1"]]:
        """Masks, predicted IoU, their tokens, the object's score; the names of arguments are the library's."""
        part: Any = self
        num_rows, _, rows, columns = image_embeddings.shape
        own = torch.cat((part.obj_score_token.weight, part.iou_token.weight, part.mask_tokens.weight))
        points, cells = part.transformer(
            point_embeddings=torch.cat((own.expand(num_rows, 1, -1, -1), sparse_prompt_embeddings), dim=2),
            image_embeddings=image_embeddings + dense_prompt_embeddings,
            image_positional_embeddings=image_positional_embeddings,
        )
        fine, finer = high_resolution_features[1], high_resolution_features[0]
        grown = part.upscale_conv1(cells[:, 0].transpose(1, 2).unflatten(2, (rows, columns))) + fine
        grown = part.activation(part.upscale_layer_norm(grown))
        grown = part.activation(part.upscale_conv2(grown) + finer)
        asked = range(1, self.num_mask_tokens) if multimask_output else range(1)
        tokens = points[:, :, 2 + asked.start : 2 + asked.stop]
        weights = [part.output_hypernetworks_mlps[at](tokens[:, 0, place]) for place, at in enumerate(asked)]
        masks = (torch.stack(weights, dim=1) @ grown.flatten(2)).unflatten(2, tuple(grown.shape[2:]))
        iou = part.iou_prediction_head(points[:, :, 1])[:, :, asked.start : asked.stop]
        return masks[:, None], iou, tokens, part.pred_obj_score_head(points[:, :, 0])


def attend(
    query: Float[Tensor, "B Q D"], key: Float[Tensor, "B S D"], value: Float[Tensor, "B S D"], num_heads: int
) -> Float[Tensor, "B Q D"]:
    """Attention of so many heads."""
    query, key, value = (each.unflatten(-1, (num_heads, -1)).transpose(1, 2) for each in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def turned(x: Float[Tensor, "B S D"], turn: Complex[Tensor, "1 P E"], num_heads: int) -> Float[Tensor, "B S D"]:
    """Neighbouring channels of each head, turned as pairs by the angles of P places, again and again from the first."""
    pairs = torch.view_as_complex(x.float().reshape(len(x), -1, turn.shape[1], num_heads, turn.shape[2], 2))
    return torch.view_as_real(pairs * turn[:, :, None]).reshape(x.shape).type_as(x)


def _attended(
    part: Any, query: Float[Tensor, "B Q D"], key: Float[Tensor, "B S D"], value: Float[Tensor, "B S D"]
) -> Float[Tensor, "B Q D"]:
    return part.o_proj(attend(part.q_proj(query), part.k_proj(key), part.v_proj(value), part.num_attention_heads))
