"""Models of transformers and a ResNet-18: results, gradients and generated tokens are the CPU's, and the libraries around them train on the device.

Weights are random, and nothing is downloaded. Needs torch with torch_openreg installed; tests of transformers and accelerate need those packages.
"""

import copy
import importlib.util
import os

import pytest
import torch
import torch.nn.functional as F
import zoo
from torch.utils.data import DataLoader, TensorDataset

import torch_openreg  # noqa: F401  (registers the device)

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
needs_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs the package transformers")
needs_accelerate = pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs the package accelerate")


@pytest.fixture(autouse=True)
def tied_parameters_stay_tied():
    """Module.to keeps a parameter's identity with torch's own switch; see core-gaps, module-to."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(before)


def moved(values, device):
    return {name: value.to(device) for name, value in values.items()}


@needs_transformers
@pytest.mark.parametrize("name", zoo.MODELS)
def test_losses_and_gradients_are_the_cpus(name, device, one_thread):
    expected = zoo.make(name)
    model = copy.deepcopy(expected).to(device)
    losses = [m(**moved(zoo.batch(name), d)).loss for m, d in ((expected, "cpu"), (model, device))]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[1].cpu(), losses[0])
    found = dict(model.named_parameters())
    assert len(found) == len(dict(expected.named_parameters()))
    for parameter_name, parameter in expected.named_parameters():
        if parameter.grad is None:
            assert found[parameter_name].grad is None
        else:
            torch.testing.assert_close(found[parameter_name].grad.cpu(), parameter.grad, rtol=1e-4, atol=1e-5, msg=parameter_name)


@needs_transformers
@pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
@pytest.mark.parametrize("name", ["llama", "t5", "whisper"])
def test_generated_tokens_are_the_cpus(name, cache, device, one_thread):
    model = zoo.make(name)
    how = {"use_cache": False} if cache == "none" else {"cache_implementation": "static"} if cache == "static" else {}
    inputs = {key: value for key, value in zoo.batch(name).items() if key != "labels"}
    outputs = [m.generate(**moved(inputs, d), max_new_tokens=8, do_sample=False, **how).cpu() for m, d in ((model, "cpu"), (copy.deepcopy(model).to(device), device))]
    assert torch.equal(*outputs) and outputs[0].shape[1] > 5


@needs_transformers
def test_sampled_tokens_follow_the_seed(device):
    model = zoo.make("llama").to(device)
    tokens = zoo.batch("llama")["input_ids"].to(device)

    def sample(seed):
        torch.manual_seed(seed)
        return model.generate(tokens, max_new_tokens=8, do_sample=True, top_k=20, temperature=1.5)

    first = sample(1)
    assert torch.equal(sample(1), first) and not torch.equal(sample(2), first)


TRAINER = """
    import os, torch, torch_openreg
    torch.__future__.set_swap_module_params_on_conversion(True)
    import sys; sys.path.insert(0, {folder!r})
    import zoo
    from transformers import Trainer, TrainingArguments, logging
    logging.set_verbosity_error()
    data = [{{"input_ids": (torch.arange(12) + i) % 50 + 3, "labels": (torch.arange(12) + i) % 50 + 3}} for i in range(64)]
    arguments = TrainingArguments("out", max_steps=50, per_device_train_batch_size=8, gradient_accumulation_steps=2, learning_rate=1e-2, report_to=[],
                                  save_steps=25, logging_steps=50, disable_tqdm=True, seed=3)

    def losses(resume):
        model = zoo.make("llama").train()
        trainer = Trainer(model=model, args=arguments, train_dataset=data)
        before = trainer.evaluate(data)["eval_loss"]
        trainer.train(resume_from_checkpoint=resume)
        assert next(model.parameters()).device.type == "openreg" and trainer.state.global_step == 50
        return before, trainer.evaluate(data)["eval_loss"]

    before, after = losses(None)
    assert after < 0.5 * before, (before, after)
    assert sorted(os.listdir("out")) == ["checkpoint-25", "checkpoint-50"]
    assert abs(losses("out/checkpoint-25")[1] - after) < 1e-4
    """


@needs_transformers
@needs_accelerate
def test_trainer_runs_fifty_steps_and_resumes(python):
    environment = {"ACCELERATE_TORCH_DEVICE": "openreg", "HF_HUB_OFFLINE": "1"}
    python(TRAINER.format(folder=os.path.dirname(zoo.__file__)), env=environment, timeout=300)


LAUNCHED = """
import torch, torch_openreg
from accelerate import Accelerator
accelerator = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=2)
assert accelerator.device.type == "openreg", accelerator.device
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
x = torch.randn(64, 4)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
model, loader = accelerator.prepare(model, loader)
optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters(), lr=0.02))
losses = []
for _ in range(12):
    for inputs, targets in loader:
        assert inputs.device.type == "openreg"
        with accelerator.accumulate(model):
            loss = (model(inputs) - targets).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    losses.append(loss.item())
assert losses[-1] < 0.2 * losses[0], losses
accelerator.save_state("state")
accelerator.load_state("state")
print("launched")
"""


@needs_accelerate
def test_accelerates_launcher_trains_on_the_device(python):
    environment = {"ACCELERATE_TORCH_DEVICE": "openreg", "HF_HOME": "home"}
    result = python(
        f"open('script.py', 'w').write({LAUNCHED!r})",
        "import subprocess, sys",
        "sys.exit(subprocess.run([sys.executable, '-m', 'accelerate.commands.launch', '--num_processes=1', '--num_machines=1', '--mixed_precision=no',"
        " '--dynamo_backend=no', 'script.py']).returncode)",
        env=environment, timeout=300,
    )  # fmt: skip
    assert "launched" in result.stdout


def test_a_resnet_computes_and_learns_as_on_the_cpu(device, one_thread):
    torch.manual_seed(0)
    models = [zoo.ResNet18(width=8)]
    models.append(copy.deepcopy(models[0]).to(device))
    assert sum(isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)) for name, module in models[0].named_modules() if "around" not in name) == 18
    x, y = torch.randn(4, 3, 64, 64), torch.tensor([1, 2, 3, 4])
    curves = []
    for model, where in zip(models, ("cpu", device)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.to(where, memory_format=torch.channels_last)), y.to(where))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().cpu())
        curves.append(torch.stack(losses))
    torch.testing.assert_close(curves[1], curves[0], rtol=2e-3, atol=2e-3)
    assert curves[0][-1] < curves[0][0]
    state = torch.load(_saved(models[1]), map_location="cpu", weights_only=True)
    models[0].load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(models[1].eval()(x.to(device)).cpu(), models[0].eval()(x), rtol=1e-3, atol=1e-3)


def _saved(model):
    import io

    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    return file


def train(device, epochs, checkpoint=None):
    """A loop as users write it: workers, pinned memory, mixed precision, accumulation, clipping; returns its state after the epochs, and the losses."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 2)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    scaler = torch.amp.GradScaler("openreg", init_scale=2.0**10)
    first = 0
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        schedule.load_state_dict(checkpoint["schedule"])
        scaler.load_state_dict(checkpoint["scaler"])
        torch.openreg.set_rng_state(checkpoint["random"].cpu(), device)
        first = checkpoint["epoch"]
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(4))
    loader = DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=16, num_workers=1, pin_memory=True)
    losses = []
    for epoch in range(first, epochs):
        for step, (inputs, targets) in enumerate(loader):
            assert inputs.is_pinned()
            inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            with torch.autocast("openreg", dtype=torch.float16):
                loss = F.cross_entropy(model(inputs), targets) / 2
            scaler.scale(loss).backward()
            if step % 2:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            losses.append(loss.detach())
        schedule.step()
    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "scaler": scaler.state_dict(),
        "random": torch.openreg.get_rng_state(device), "epoch": epochs,
    }  # fmt: skip
    return state, torch.stack(losses).cpu()


def test_a_training_loop_resumes_where_it_was(device, tmp_path):
    whole, losses = train(device, 4)
    half, _ = train(device, 2)
    torch.save(half, tmp_path / "half.pt")
    rest, later = train(device, 4, torch.load(tmp_path / "half.pt", map_location=device))
    assert torch.equal(later, losses[-len(later):]) and losses[-6:].mean() < 0.8 * losses[:6].mean()
    for name, value in whole["model"].items():
        assert torch.equal(value, rest["model"][name]), name


def test_an_exported_and_a_scripted_model_give_the_same(device):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).to(device).eval()
    x = torch.randn(3, 4, device=device)
    expected = model(x)
    program = torch.export.export(model, (x,), dynamic_shapes={"input": {0: torch.export.Dim("rows", min=2)}})
    assert torch.equal(program.module()(x), expected)
    assert program.module()(torch.randn(5, 4, device=device)).shape == (5, 2)
    scripted = torch.jit.script(model)
    assert torch.equal(scripted(x), expected) and torch.equal(torch.jit.trace(model, x)(x), expected)


def test_functional_transforms_of_a_model(device):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    x, y = torch.randn(6, 4), torch.randn(6, 2)

    def gradients(where):
        parameters = {name: value.detach().to(where) for name, value in model.named_parameters()}

        def loss(parameters, x, y):
            return (torch.func.functional_call(model, parameters, (x,)) - y).square().sum()

        per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x.to(where), y.to(where))
        hessian = torch.func.hessian(loss)(parameters, x.to(where), y.to(where))
        return [value.cpu() for value in per_sample.values()] + [inner.cpu() for outer in hessian.values() for inner in outer.values()]

    for found, expected in zip(gradients(device), gradients("cpu"), strict=True):
        torch.testing.assert_close(found, expected)
