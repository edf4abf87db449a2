"""Latent attention: every head makes its keys and values from one short vector a token.

Chosen: half of a head's channels carry position and read one key that all heads share;
the other half and the values come from the latent. Left out: a latent for queries.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cort33x_lib.model.attention import SlotState, attend, readable
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.norm import normalise
from cort33x_lib.model.positions import rotary_angles, rotate


@dataclass(frozen=True)
class LatentState(SlotState):
    """The latents of the tokens read so far, each with the key that carries position.

    R is the latent's width.
    """

    latents: Tensor  # (B, 1, S, R + D/2)
    position: Tensor  # (B,)


class LatentProjections(nn.Module):
    """What both forms of latent attention share: the weights, queries and latents.

    Raises ValueError when half a head's channels cannot be paired by rotary positions.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, R = config.head_channels, config.latent_channels
        if D % 4:
            raise ValueError(f"head_channels is {D}, expected a multiple of 4 for L")
        self.heads, self.head_channels, self.latent_channels = config.heads, D, R
        self.sizes = [config.heads * D, R, D // 2]
        self.project_in = nn.Linear(config.channels, sum(self.sizes), bias=False)
        self.make_keys = nn.Linear(R, config.heads * D // 2, bias=False)
        self.make_values = nn.Linear(R, config.heads * D, bias=False)
        self.project_out = nn.Linear(config.heads * D, config.channels, bias=False)
        self.query_gain = nn.Parameter(torch.ones(D))
        self.latent_gain = nn.Parameter(torch.ones(R))
        self.key_gain = nn.Parameter(torch.ones(D // 2))

    def project(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Queries, and latents beside the shared keys; the last D/2 of both rotated.

        (B, T, C), (B,) or (1,) -> (B, H, T, D), (B, 1, T, R + D/2)
        """
        queries, latents, key = self.project_in(x).split(self.sizes, dim=2)
        heads = queries.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D)
        heads = normalise(heads, self.query_gain)
        latents = normalise(latents, self.latent_gain)
        key = normalise(key, self.key_gain)
        angles = rotary_angles(position, x.size(1), key.size(2))
        plain, turned = heads.chunk(2, dim=-1)  # (B, H, T, D/2) each
        queries = torch.cat([plain, rotate(turned, angles)], dim=-1)
        key = rotate(key.unsqueeze(1), angles)  # (B, 1, T, D/2)
        return queries, torch.cat([latents.unsqueeze(1), key], dim=-1)


class LatentAttention(LatentProjections):
    """The mixer `L`. DeepSeek-AI (2024), DeepSeek-V2.

    Its state holds one latent and one rotary key a token, whatever the number of heads.
    """

    def read_made(
        self, queries: Tensor, latents: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """What the heads read, each from keys and values made for it.

        (B, H, T, D), (B, 1, S, R + D/2) -> (B, H, T, D)
        """
        plain, key = latents.split(self.sizes[1:], dim=-1)
        keys, values = (
            make(plain.squeeze(1)).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for make in (self.make_keys, self.make_values)
        )  # (B, H, S, D/2), (B, H, S, D)
        keys = torch.cat([keys, key.expand_as(keys)], dim=-1)  # (B, H, S, D)
        return attend(queries, keys, values, mask)

    def read_absorbed(
        self, queries: Tensor, latents: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The same, from the latents as they are: the queries go to them.

        (B, H, T, D), (B, 1, S, R + D/2) -> (B, H, T, D)
        """
        R, width = self.latent_channels, latents.size(3)
        plain, turned = queries.chunk(2, dim=-1)  # (B, H, T, D/2) each
        plain = plain @ self.make_keys.weight.unflatten(0, (self.heads, -1))
        wide = torch.cat([plain, turned], dim=-1)  # (B, H, T, R + D/2)
        wide = wide * (width / self.head_channels) ** 0.5  # as attend divides by it
        read = attend(wide, latents, latents, mask)[..., :R]  # (B, H, T, R)
        return read @ self.make_values.weight.unflatten(0, (self.heads, -1)).mT

    def forward(
        self, x: Tensor, state: LatentState | None = None
    ) -> tuple[Tensor, LatentState]:
        """(B, T, C) -> (B, T, C) and the state after the last token."""
        position = state.position if state else torch.zeros(len(x), dtype=torch.int64)
        queries, latents = self.project(x, position)
        position = position + x.size(1)
        if state:
            latents = torch.cat([state.latents, latents], dim=2)
            mask = readable(position, x.size(1), latents.size(2)).to(x.device)
            read = self.read_absorbed(queries, latents, mask)
        else:
            read = self.read_made(queries, latents)
        y = self.project_out(read.transpose(1, 2).flatten(2))
        return y, LatentState(latents, position)
