"""Language models on the device: they learn and generate as on the CPU, and the host waits only where it would wait for any accelerator.

Sequence lengths, batch sizes and learning rates change from step to step. Needs the built package.
"""

import pytest
import torch
import torch_openreg  # noqa: F401
from torch.nn import functional as F

from language import VOCABULARY, Decoder, RecurrentLM, generate, text

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIMIZERS = {
    "adamw_foreach": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, foreach=True),
    "adamw_fused": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, fused=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}


def waited():
    """The operators that made the host wait since the last reset, with how often."""
    return {name: calls["waited"] for name, calls in torch.openreg.op_stats().items() if calls["waited"]}


def build(kind, device):
    torch.manual_seed(0)
    return kind().to(device)


def step(model, optimizer, tokens):
    optimizer.zero_grad()
    logits, _ = model(tokens[:, :-1])
    loss = F.cross_entropy(logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", [RecurrentLM, Decoder])
def test_training_with_changing_sizes_waits_for_nothing(kind, optimizer, device):
    model = build(kind, device)
    trained = OPTIMIZERS[optimizer](model.parameters())
    batches = [tokens.to(device) for tokens in text([9, 12, 7, 15, 10]) + text([11, 6], batch=3)]
    for tokens in batches[:2]:
        step(model, trained, tokens)
    torch.openreg.synchronize(device)
    torch.openreg.reset_op_stats()
    for number, tokens in enumerate(batches[2:]):
        trained.param_groups[0]["lr"] *= 0.5 + 0.25 * number
        step(model, trained, tokens)
    assert waited() == {}
    torch.openreg.synchronize(device)


@pytest.mark.parametrize("sample", [False, True], ids=["greedy", "sampled"])
def test_generating_waits_for_nothing(sample, device):
    model = build(Decoder, device).eval()
    first, second = (tokens.to(device) for tokens in text([5, 8]))
    generate(model, first, 3, sample)
    torch.openreg.synchronize(device)
    torch.openreg.reset_op_stats()
    tokens = generate(model, second, 20, sample)
    assert waited() == {}
    assert tokens.shape == (4, 28) and bool((tokens < VOCABULARY).all())


def test_reading_a_token_is_what_waits(device):
    model = build(Decoder, device).eval()
    tokens = text([5], batch=1)[0].to(device)
    generate(model, tokens, 3)
    torch.openreg.reset_op_stats()
    for _ in range(4):
        tokens = generate(model, tokens, 1)
        if tokens[0, -1].item() == VOCABULARY:  # the end of the text
            break
    assert waited() == {"aten::_local_scalar_dense": 4}


def test_a_recurrent_model_learns_as_on_the_cpu(device):
    batches = text([9, 12, 7, 15])
    losses = {}
    for place in ("cpu", device):
        model = build(RecurrentLM, place)
        model.lstm.dropout = 0.0
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses[str(place)] = torch.stack([step(model, optimizer, tokens.to(place)) for _ in range(3) for tokens in batches]).cpu()
    torch.testing.assert_close(losses[str(device)], losses["cpu"], rtol=1e-4, atol=1e-5)


def test_greedy_tokens_are_those_of_the_cpu(device):
    reference = build(Decoder, "cpu").eval()
    model = build(Decoder, device).eval()
    tokens = text([6])[0]
    assert torch.equal(generate(model, tokens.to(device), 30).cpu(), generate(reference, tokens, 30))
