"""Makes the model packs that ship, `torch_openreg/testing/conformance/packs/`, from models with random weights, on the CPU.

    python tests/conformance/make_packs.py [NAME ...]

Needs transformers. The same version of torch and transformers gives the same files. A program makes a model, yields, and is recorded from there.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "integration")]

import torch  # noqa: E402
from torch import nn  # noqa: E402

import zoo  # noqa: E402
from torch_openreg.testing.conformance import pack as packs  # noqa: E402
from torch_openreg.testing.conformance.recorder import Recorder  # noqa: E402


def train(model, batch, optimizer, clip: float = 0.0):
    """One step of training, with gradients clipped to a norm, when asked for."""
    model.train()
    model(**batch).loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()


def adamw(model, **flags):
    return torch.optim.AdamW(model.parameters(), lr=1e-3, **flags)


def llama():
    "a training step with AdamW (foreach) and clipped gradients, and 6 tokens generated greedily, of a Llama of width 32"
    model = zoo.make("llama")
    yield
    train(model, zoo.batch("llama"), adamw(model, foreach=True), clip=1.0)
    model.eval().generate(zoo.batch("llama")["input_ids"], max_new_tokens=6, do_sample=False)


def bert():
    "a training step with SGD and momentum, attention written out, of a BERT of width 32"
    model = zoo.make("bert")
    model.set_attn_implementation("eager")
    yield
    train(model, zoo.batch("bert"), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True))


def vit():
    "a training step with fused AdamW under bfloat16 autocast of a ViT of width 32"
    model = zoo.make("vit")
    model.set_attn_implementation("eager")
    optimizer = adamw(model, fused=True)
    yield
    with torch.autocast("cpu", torch.bfloat16):
        train(model, zoo.batch("vit"), optimizer)


def whisper():
    "a training step with AdamW, a loop over parameters, and 4 tokens generated, of a Whisper of width 32"
    model = zoo.make("whisper")
    yield
    train(model, zoo.batch("whisper"), adamw(model, foreach=False))
    model.eval().generate(zoo.batch("whisper")["input_features"], max_new_tokens=4, do_sample=False)


def t5():
    "a training step with Adagrad, and 4 tokens drawn at random, of a T5 of width 32"
    model = zoo.make("t5")
    model.set_attn_implementation("eager")
    yield
    train(model, zoo.batch("t5"), torch.optim.Adagrad(model.parameters(), lr=0.1, foreach=True))
    model.eval().generate(zoo.batch("t5")["input_ids"], max_new_tokens=4, do_sample=True, top_k=10)


@dataclass
class Output:
    loss: torch.Tensor


class Classifier(nn.Module):
    """A network with a loss, called as the models of transformers are."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, labels):
        return Output(nn.functional.cross_entropy(self.network(x), labels))


def resnet18():
    "a training step with SGD, momentum and weight decay, and one evaluation, channels last, of a ResNet-18 of width 8"
    torch.manual_seed(0)
    model = Classifier(zoo.ResNet18(width=8)).to(memory_format=torch.channels_last)
    batch = {"x": torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last), "labels": torch.tensor([1, 7])}
    yield
    train(model, batch, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True, foreach=True))
    with torch.no_grad():
        model.eval()(**batch)


def llama_512():
    "a training step with AdamW (foreach), batch 4, 128 tokens, of a Llama of width 512 with 8 heads and a vocabulary of 4000"
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = dict(vocab_size=4000, hidden_size=512, intermediate_size=1376, num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=4)
    model = LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=128, attn_implementation="eager"))
    tokens = torch.randint(0, 4000, (4, 128))
    yield
    train(model, {"input_ids": tokens, "labels": tokens}, adamw(model, foreach=True), clip=1.0)


def resnet18_64():
    "a training step with SGD and momentum, batch 8, images of 112x112, of a ResNet-18 of width 64"
    torch.manual_seed(0)
    model = Classifier(zoo.ResNet18(classes=1000))
    batch = {"x": torch.randn(8, 3, 112, 112), "labels": torch.randint(0, 1000, (8,))}
    yield
    train(model, batch, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True))


PROGRAMS = {program.__name__: program for program in (llama, bert, vit, whisper, t5, resnet18, llama_512, resnet18_64)}


def record(name: str) -> packs.Pack:
    """The pack of a program, which sees random numbers of its own seed."""
    program = PROGRAMS[name]()
    next(program)
    torch.manual_seed(0)
    with Recorder(torch.device("cpu")) as recorder:
        next(program, None)
    return recorder.pack(name, PROGRAMS[name].__doc__)


if __name__ == "__main__":
    for name in sys.argv[1:] or PROGRAMS:
        made = record(name)
        packs.write(made, packs.SHIPPED / f"{name}.jsonl")
        print(f"{name}: {made.recorded} calls, {len(made.calls)} distinct, of {len(made.operators)} operators; left out: {made.left_out}")
