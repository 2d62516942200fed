"""Real models on openreg against cpu, as ratios: training steps, the same under autocast's bfloat16, and generated tokens.

    python tests/benchmarks/models.py                    all lines, some minutes
    python tests/benchmarks/models.py --only llama,vit
    python tests/benchmarks/models.py --write-docs       and put the table into docs/models.md

Weights are random, in configurations of a few hundred thousand to a few million parameters. The exit status is 0 all the same, because timing is
no test. Needs transformers.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
from pathlib import Path

import torch
import torch_openreg  # noqa: F401

import table
import timing
from timing import Row, Side

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
import zoo  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
TRAINING, GENERATING, MIXED = 1.0, 1.1, 1.0
SIZES = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}


def build(name):
    """A model and the arguments of a call with a loss, on the CPU."""
    torch.manual_seed(0)
    tokens = torch.randint(3, 1000, (4, 48))
    if name == "resnet":
        return _Classifier(zoo.ResNet18(width=16)), {"x": torch.randn(8, 3, 64, 64), "y": torch.arange(8)}
    import transformers as t

    if name == "llama":
        config = t.LlamaConfig(vocab_size=1000, num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, eos_token_id=None, **SIZES)
        return t.LlamaForCausalLM(config), {"input_ids": tokens, "labels": tokens}
    if name == "bert":
        return t.BertForMaskedLM(t.BertConfig(vocab_size=1000, **SIZES)), {"input_ids": tokens, "labels": tokens}
    if name == "vit":
        config = t.ViTConfig(image_size=32, patch_size=4, num_labels=10, **SIZES)
        return t.ViTForImageClassification(config), {"pixel_values": torch.randn(4, 3, 32, 32), "labels": torch.arange(4)}
    if name == "whisper":
        config = t.WhisperConfig(vocab_size=1000, d_model=128, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                                 encoder_ffn_dim=256, decoder_ffn_dim=256, num_mel_bins=20, max_source_positions=60, max_target_positions=128,
                                 pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)  # fmt: skip
        return t.WhisperForConditionalGeneration(config), {"input_features": torch.randn(4, 20, 120), "labels": tokens}
    config = t.T5Config(vocab_size=1000, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4, decoder_start_token_id=0, pad_token_id=0)
    return t.T5ForConditionalGeneration(config), {"input_ids": tokens, "labels": tokens}


class _Classifier(torch.nn.Module):
    """A model with its loss, called as those of transformers are."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return type("Output", (), {"loss": torch.nn.functional.cross_entropy(self.model(x), y)})


def training(name, mixed=False):
    """The sides of a training step."""

    def sides(tiny):
        model, arguments = build(name)
        made = []
        for device in ("openreg", "cpu"):
            here = copy.deepcopy(model).to(device).train()
            moved = {key: value.to(device) for key, value in arguments.items()}
            optimizer = torch.optim.AdamW(here.parameters(), lr=1e-3)
            context = torch.autocast(device, dtype=torch.bfloat16) if mixed else contextlib.nullcontext()

            def step(here=here, moved=moved, optimizer=optimizer, context=context):
                optimizer.zero_grad()
                with context:
                    loss = here(**moved).loss
                loss.backward()
                optimizer.step()

            for _ in range(1 if tiny else 3):
                step()
            made.append(step)
        torch.openreg.synchronize()
        return Side(made[0], on_clock=torch.openreg.synchronize), Side(made[1])

    return sides


def generating(name):
    """The sides of a call that generates tokens."""

    def sides(tiny):
        model, arguments = build(name)
        made = []
        for device in ("openreg", "cpu"):
            here = copy.deepcopy(model).to(device).eval()
            moved = {key: value.to(device) for key, value in arguments.items() if key != "labels"}

            def generate(here=here, moved=moved):
                here.generate(**moved, max_new_tokens=4 if tiny else 24, do_sample=False)

            generate()
            made.append(generate)
        return Side(made[0], on_clock=torch.openreg.synchronize), Side(made[1])

    return sides


TITLES = {"llama": "Llama", "bert": "BERT", "vit": "ViT", "whisper": "Whisper", "t5": "T5", "resnet": "ResNet-18"}
ROWS = [
    *(Row(name, f"{title}: training step", TRAINING, training(name), rounds=41) for name, title in TITLES.items()),
    *(Row(f"{name}-bf16", f"{title}: training step, bfloat16", MIXED, training(name, mixed=True), rounds=25) for name, title in TITLES.items()),
    *(Row(f"{name}-generate", f"{TITLES[name]}: 24 tokens generated", GENERATING, generating(name), rounds=15) for name in ("llama", "whisper", "t5")),
]


def main():
    parser = argparse.ArgumentParser(description="Time of real models on openreg against cpu, as ratios.")
    parser.add_argument("--only", metavar="NAME,...", help=f"these lines only: {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--tiny", action="store_true", help="that everything runs, and no figures")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    if options.write_docs and (options.only or options.tiny):
        parser.error("--write-docs writes all lines; leave --only and --tiny away")
    names = options.only.split(",") if options.only else [row.name for row in ROWS]
    if unknown := set(names) - {row.name for row in ROWS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay tied
    shown = ["| model | openreg against cpu | target |", "|---|---:|---|"]
    for row in ROWS:
        if row.name in names:
            result = timing.measure(row, options.rounds, options.tiny)
            shown.append(f"| {row.title} | {result.ratio:.2f} | {row.target:.2f}: {'met' if result.met else '**missed**'} |")
            print(table.line(result), flush=True)
    if options.write_docs:
        table.write_docs(PAGE, table.conditions() + "\n\n" + "\n".join(shown))


if __name__ == "__main__":
    main()
