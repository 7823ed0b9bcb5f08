"""What prompts begin with alike is computed once: its keys and values are handed to each that goes on from there.

Candidates of one (source, instruction) share rubric, principles and source image, and all samples of one request share
the whole prompt. Only for model families with plain attention caches whose positions are computed from the whole prompt
beforehand (Qwen-VL's M-RoPE): `SHARING` lists those for which the tests find the same replies with and without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SHARING", "EncodedPrompt", "Prefilled", "common_length", "prefill", "share"]

#: Model types whose prompts can be computed in pieces.
SHARING: Final = frozenset({"qwen2_5_vl", "qwen3_vl"})


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt as its processor encodes it.

    Attributes:
        tensors: `input_ids` and other (1, L) tensors, and the images' tensors.
    """

    tensors: dict[str, Tensor]

    @property
    def ids(self) -> Tensor:
        """Token ids, shape (L,)."""
        return self.tensors["input_ids"][0]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def kinds(self) -> Tensor:
        """1 at image tokens, 0 elsewhere, shape (L,)."""
        return self.tensors["mm_token_type_ids"][0]

    @property
    def grids(self) -> Tensor:
        """Patches per image in time, height and width, shape (images, 3)."""
        return self.tensors["image_grid_thw"]

    @cached_property
    def pixels(self) -> tuple[Tensor, ...]:
        """Per image its patches, shape (patches, values)."""
        return torch.split(self.tensors["pixel_values"], self.grids.prod(dim=-1).tolist())

    @cached_property
    def images(self) -> tuple[tuple[int, int], ...]:
        """Per image where its tokens begin and end."""
        edges = torch.diff(self.kinds.eq(1).int(), prepend=torch.zeros(1), append=torch.zeros(1))
        return tuple(zip(edges.eq(1).nonzero()[:, 0].tolist(), edges.eq(-1).nonzero()[:, 0].tolist(), strict=True))

    @property
    def is_divisible(self) -> bool:
        """Whether it holds all that `prefill` needs to cut it."""
        needed = ("mm_token_type_ids", "image_grid_thw", "pixel_values")
        if not all(name in self.tensors for name in needed) or len(self.images) != len(self.grids):
            return False
        return self.images[0][0] > 0 and self.images[-1][1] < len(self)


@dataclass(frozen=True)
class Prefilled:
    """A batch whose prompts are computed but for their last token.

    Attributes:
        ids, mask: shape (R, L), for `generate`.
        positions: shape (3, R, L).
        cache: keys and values of the first L - 1 columns.
        cache_name: what the model calls it.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    cache: Any
    cache_name: str

    def rows(self, chosen: Sequence[int]) -> dict[str, Any]:
        """Arguments of `generate` for these rows, each as often as it is named; uses the cache up."""
        index = torch.tensor(chosen)
        self.cache.batch_select_indices(index)
        index = index.to(self.ids.device)
        return {
            "input_ids": self.ids[index],
            "attention_mask": self.mask[index],
            "position_ids": self.positions[:, index],
            self.cache_name: self.cache,
        }


def common_length(prompts: Sequence[EncodedPrompt]) -> int:
    """How many tokens all prompts begin with, images with equal pixels included and none cut; never a whole prompt."""
    first = prompts[0]
    shared = min(len(prompt) for prompt in prompts) - 1
    for other in prompts[1:]:
        differing = first.ids[:shared].ne(other.ids[:shared]).nonzero()
        shared = int(differing[0]) if len(differing) else shared
        for number, (start, end) in enumerate(first.images):
            if start < shared and not (end <= shared and _same_image(first, other, number)):
                shared = start
    return shared


def share(prompts: Sequence[EncodedPrompt], groups: Sequence[str]) -> list[tuple[list[int], int]]:
    """Which prompts (by number) go on from which common beginning: (members, its length in tokens), all prompts once.

    Args:
        groups: per prompt the group it may share with; "" shares with none. Only a hint: tokens and pixels decide.
    """
    parts: dict[object, list[int]] = {}
    for number, group in enumerate(groups):
        parts.setdefault(group or number, []).append(number)
    shared: list[tuple[list[int], int]] = []
    for members in parts.values():
        length = common_length([prompts[number] for number in members])
        if len(members) > 1 and length > 0:
            shared.append((members, length))
        else:
            shared += [([number], _natural_cut(prompts[number])) for number in members]
    return shared


@torch.inference_mode()
def prefill(
    model: Any, prompts: Sequence[EncodedPrompt], shared: Sequence[tuple[list[int], int]], pad: int
) -> Prefilled:
    """Compute the common beginnings once each, then what follows for every prompt, but for the last token.

    Rows are laid out as [padding, beginning][padding, rest]: each part ends in one column for all rows.

    Args:
        shared: from `share`.
        pad: the id of the padding token.
    """
    cuts = {number: length for members, length in shared for number in members}
    head = max(cuts.values()) if len(shared) < len(prompts) else 0
    ids, mask, kinds = _laid_out(prompts, cuts, head, pad)
    ids, mask, kinds = (tensor.to(model.device) for tensor in (ids, mask, kinds))
    grids = torch.cat([prompt.grids for prompt in prompts]).to(model.device)
    positions, _ = model.base_model.get_rope_index(
        ids, mm_token_type_ids=kinds, image_grid_thw=grids, attention_mask=mask
    )
    cache = DynamicCache(config=model.config)
    # transformers 5.24 renamed the argument, and drops the old name later.
    cache_name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"

    def compute(rows: list[int], begin: int, end: int, images: list[tuple[Tensor, Tensor]]) -> None:
        if begin == end:
            return
        vision = {}
        if images:
            vision["pixel_values"] = torch.cat([pixels for pixels, _ in images]).to(model.device, model.dtype)
            vision["image_grid_thw"] = torch.stack([grid for _, grid in images]).to(model.device)
        model(
            input_ids=ids[rows, begin:end],
            attention_mask=mask[rows, :end],
            position_ids=positions[:, rows, begin:end],
            use_cache=True,
            logits_to_keep=1,
            **{cache_name: cache},
            **vision,
        )

    everyone = list(range(len(prompts)))
    if head:
        leaders = [members[0] for members, _ in shared]
        compute(leaders, 0, head, [image for row in leaders for image in _images(prompts[row], 0, cuts[row])])
        place = {number: place for place, (members, _) in enumerate(shared) for number in members}
        cache.batch_select_indices(torch.tensor([place[number] for number in everyone]))
    rest = [image for row in everyone for image in _images(prompts[row], cuts[row] if head else 0, len(prompts[row]))]
    compute(everyone, head, ids.shape[1] - 1, rest)
    return Prefilled(ids=ids, mask=mask, positions=positions, cache=cache, cache_name=cache_name)


def _same_image(one: EncodedPrompt, other: EncodedPrompt, number: int) -> bool:
    # Equal patches in another grid are another image.
    return (
        number < len(other.images)
        and torch.equal(one.grids[number], other.grids[number])
        and torch.equal(one.pixels[number], other.pixels[number])
    )


def _natural_cut(prompt: EncodedPrompt) -> int:
    return prompt.images[-1][0] if prompt.images else len(prompt) - 1


def _laid_out(
    prompts: Sequence[EncodedPrompt], cuts: dict[int, int], head: int, pad: int
) -> tuple[Tensor, Tensor, Tensor]:
    tail = max(len(prompt) - (cuts[row] if head else 0) for row, prompt in enumerate(prompts))
    shape = (len(prompts), head + tail)
    ids, mask, kinds = torch.full(shape, pad), torch.zeros(shape).long(), torch.zeros(shape).int()
    for row, prompt in enumerate(prompts):
        cut = cuts[row] if head else 0
        for begin, end, last in ((0, cut, head), (cut, len(prompt), head + tail)):
            columns = slice(last - (end - begin), last)
            ids[row, columns], mask[row, columns] = prompt.ids[begin:end], 1
            kinds[row, columns] = prompt.kinds[begin:end].int()
    return ids, mask, kinds


def _images(prompt: EncodedPrompt, begin: int, end: int) -> list[tuple[Tensor, Tensor]]:
    """Patches and grid of the images whose tokens begin in [begin, end)."""
    return [
        (pixels, grid)
        for (start, _), pixels, grid in zip(prompt.images, prompt.pixels, prompt.grids, strict=True)
        if begin <= start < end
    ]
