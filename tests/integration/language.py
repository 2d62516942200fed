"""Two small language models: a recurrent one, and a decoder with a key-value cache that generates token by token.

Needs torch only; works on any device. Sizes change from call to call, as they do in real text.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

VOCABULARY = 37


class RecurrentLM(nn.Module):
    """Embedding, an LSTM of two layers with dropout, and the next token's logits."""

    def __init__(self, width: int = 24):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, dropout=0.1, batch_first=True)
        self.logits = nn.Linear(width, VOCABULARY)

    def forward(self, tokens, state=None):
        hidden, state = self.lstm(self.tokens(tokens), state)
        return self.logits(hidden), state


class Block(nn.Module):
    """Pre-norm attention with a cache, and a feed-forward network, as in GPT-2."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, cache):
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(width, dim=2)
        )
        if cache is not None:
            key, value = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        x = x + self.project(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")), (key, value)


class Decoder(nn.Module):
    """GPT-2, sized down. `forward` returns logits and the caches of all blocks."""

    def __init__(self, width: int = 32, heads: int = 4, blocks: int = 2, context: int = 64):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens, caches=None):
        begin = 0 if caches is None else caches[0][0].shape[2]
        places = torch.arange(begin, begin + tokens.shape[1], device=tokens.device)
        x, kept = self.tokens(tokens) + self.places(places), []
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks)):
            x, cache = block(x, cache)
            kept.append(cache)
        return F.linear(self.norm(x), self.tokens.weight), kept


@torch.no_grad()
def generate(model, tokens, count, sample=False, top_k=10):
    """`tokens` and `count` more, greedily or drawn from the `top_k` most likely. Reads nothing on the host."""
    logits, caches = model(tokens)
    for _ in range(count):
        last = logits[:, -1]
        if sample:
            values, places = torch.topk(last / 0.8, top_k)
            drawn = torch.multinomial(F.softmax(values, dim=-1), 1)
            token = places.gather(1, drawn)
        else:
            token = last.argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, token], dim=1)
        logits, caches = model(token, caches)
    return tokens


def text(lengths, batch=4, seed=0):
    """Batches of tokens with the given lengths, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (batch, length), generator=generator) for length in lengths]
