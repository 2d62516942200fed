"""Layers, losses and optimizers against loops and numpy: the values that a training run depends on, and their gradients."""

import math

import numpy
import torch
from reference import host, reals
from torch.nn import functional as f
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests


def convolved(x, weight, bias, stride=1, padding=0, dilation=1, groups=1):
    """A convolution in two dimensions as loops."""
    x = numpy.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    batch, channels, height, width = x.shape
    outs, ins, rows, columns = weight.shape
    out_height = (height - dilation * (rows - 1) - 1) // stride + 1
    out_width = (width - dilation * (columns - 1) - 1) // stride + 1
    result = numpy.zeros((batch, outs, out_height, out_width)) + bias[:, None, None]
    for out in range(outs):
        first = out // (outs // groups) * ins
        for i in range(out_height):
            for j in range(out_width):
                window = x[:, first : first + ins, i * stride : i * stride + dilation * (rows - 1) + 1 : dilation, j * stride : j * stride + dilation * (columns - 1) + 1 : dilation]
                result[:, out, i, j] += (window * weight[out]).sum((1, 2, 3))
    return result


def softmax(a, axis=-1):
    e = numpy.exp(a - a.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(a):
    return 1 / (1 + numpy.exp(-a))


CONVOLUTIONS = {
    "plain": {}, "stride": {"stride": 2}, "padding": {"padding": 1}, "dilation": {"dilation": 2}, "groups": {"groups": 2}, "depthwise": {"groups": 4},
    "all": {"stride": 2, "padding": 2, "dilation": 2, "groups": 2},
}  # fmt: skip


class TestNN(TestCase):
    def on(self, device, *arrays, grad=False):
        return [torch.tensor(array, device=device, requires_grad=grad) for array in arrays]

    @parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    @parametrize("name", sorted(CONVOLUTIONS))
    def test_convolution(self, device, name, memory_format):
        options = CONVOLUTIONS[name]
        arrays = reals((2, 4, 7, 8)), reals((4, 4 // options.get("groups", 1), 3, 2), 1), reals((4,), 2)
        x, weight, bias = self.on(device, *arrays, grad=True)
        got = f.conv2d(x.to(memory_format=memory_format), weight, bias, **options)
        self.assertEqual(got, convolved(*arrays, **options))
        self.assertTrue(torch.autograd.gradcheck(lambda *a: f.conv2d(*a, **options), (x[:1, :, :5, :5].detach().requires_grad_(), weight, bias), fast_mode=True))
        line = f.conv1d(x[:, :, 0], weight[..., 0], bias, **options)
        if "padding" not in options:
            self.assertEqual(line, convolved(arrays[0][:, :, :1].swapaxes(2, 3), arrays[1][..., :1], arrays[2], **options)[..., 0])

    @parametrize("stride", [1, 2])
    def test_a_transposed_convolution_is_the_gradient_of_a_convolution(self, device, stride):
        x, weight = self.on(device, reals((2, 3, 9, 9)), reals((4, 3, 3, 3), 1), grad=True)
        y = f.conv2d(x, weight, stride=stride)
        cotangent = torch.tensor(reals(tuple(y.shape), 2), device=device)
        (gradient,) = torch.autograd.grad(y, x, cotangent)
        self.assertEqual(f.conv_transpose2d(cotangent, weight.detach(), stride=stride), gradient)
        volume = torch.tensor(reals((1, 3, 4, 5, 6)), device=device)
        kernel = torch.tensor(reals((2, 3, 1, 1, 1)), device=device)
        self.assertEqual(f.conv3d(volume, kernel), numpy.einsum("bcdhw,oc->bodhw", host(volume), host(kernel)[..., 0, 0, 0]))

    @parametrize("kind", ["max", "avg", "lp", "adaptive_avg", "adaptive_max"])
    def test_pooling(self, device, kind):
        array = reals((2, 3, 6, 8))
        (x,) = self.on(device, array, grad=True)
        windows = array.reshape(2, 3, 3, 2, 4, 2).transpose(0, 1, 2, 4, 3, 5).reshape(2, 3, 3, 4, 4)
        got = {
            "max": lambda: f.max_pool2d(x, 2), "avg": lambda: f.avg_pool2d(x, 2), "lp": lambda: f.lp_pool2d(x.abs(), 2.0, 2),
            "adaptive_avg": lambda: f.adaptive_avg_pool2d(x, (3, 4)), "adaptive_max": lambda: f.adaptive_max_pool2d(x, (3, 4)),
        }[kind]()  # fmt: skip
        want = {"max": windows.max(-1), "avg": windows.mean(-1), "lp": numpy.sqrt((windows**2).sum(-1)), "adaptive_avg": windows.mean(-1), "adaptive_max": windows.max(-1)}[kind]
        self.assertEqual(got, want)
        if kind in ("max", "adaptive_max"):
            got.sum().backward()
            self.assertEqual(x.grad.sum().item(), 72)
            self.assertEqual(x.grad[x.grad > 0].sum().item(), 72)
            values, places = f.max_pool2d(x, 2, return_indices=True)
            self.assertEqual(x.flatten(2).gather(2, places.flatten(2)).reshape(values.shape), values)
            unpooled = f.max_unpool2d(values, places, 2)
            self.assertEqual(unpooled.sum(), values.sum())

    @parametrize("training", [True, False])
    def test_batch_norm(self, device, training):
        array, weight, bias = reals((4, 3, 5)), reals((3,), 1), reals((3,), 2)
        mean, variance = reals((3,), 3), numpy.abs(reals((3,), 4))
        x, w, b, m, v = self.on(device, array, weight, bias, mean, variance)
        got = f.batch_norm(x, m, v, w, b, training, 0.1)
        used_mean = array.mean((0, 2)) if training else mean
        used_variance = array.var((0, 2)) if training else variance
        shaped = lambda a: a[:, None]  # noqa: E731
        self.assertEqual(got, (array - shaped(used_mean)) / numpy.sqrt(shaped(used_variance) + 1e-5) * shaped(weight) + shaped(bias))
        if training:
            self.assertEqual(m, 0.9 * mean + 0.1 * array.mean((0, 2)))
            self.assertEqual(v, 0.9 * variance + 0.1 * array.var((0, 2), ddof=1))

    def test_other_norms(self, device):
        array, weight, bias = reals((2, 6, 4)), reals((4,), 1), reals((4,), 2)
        x, w, b = self.on(device, array, weight, bias)
        normed = lambda a, axis: (a - a.mean(axis, keepdims=True)) / numpy.sqrt(a.var(axis, keepdims=True) + 1e-5)  # noqa: E731
        self.assertEqual(f.layer_norm(x, (4,), w, b), normed(array, -1) * weight + bias)
        self.assertEqual(f.group_norm(x, 3), normed(array.reshape(2, 3, 8), -1).reshape(2, 6, 4))
        self.assertEqual(f.instance_norm(x), normed(array, -1))
        self.assertEqual(f.rms_norm(x, (4,), w, 1e-6), array / numpy.sqrt((array**2).mean(-1, keepdims=True) + 1e-6) * weight)
        self.assertEqual(f.normalize(x, dim=1), array / numpy.sqrt((array**2).sum(1, keepdims=True)))
        self.assertEqual(f.local_response_norm(x, 1, 1.0, 0.75, 1.0).shape, x.shape)

    @parametrize("name", ["relu", "gelu", "gelu_tanh", "silu", "softplus", "elu", "leaky_relu", "hardtanh", "mish", "softsign", "logsigmoid", "hardswish", "selu", "softmax", "log_softmax", "glu", "tanhshrink", "prelu"])
    @dtypes(torch.float64, torch.float32)
    def test_activations(self, device, dtype, name):
        a = reals((4, 6), dtype=str(dtype).removeprefix("torch.")) * 2
        (x,) = self.on(device, a)
        erf = numpy.vectorize(math.erf)
        mine, want = {
            "relu": (f.relu, numpy.maximum(a, 0)), "gelu": (f.gelu, a / 2 * (1 + erf(a / math.sqrt(2)))), "silu": (f.silu, a * sigmoid(a)),
            "gelu_tanh": (lambda x: f.gelu(x, approximate="tanh"), a / 2 * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))),
            "softplus": (f.softplus, numpy.log1p(numpy.exp(a))), "elu": (f.elu, numpy.where(a > 0, a, numpy.expm1(a))),
            "leaky_relu": (f.leaky_relu, numpy.where(a > 0, a, 0.01 * a)), "hardtanh": (f.hardtanh, a.clip(-1, 1)),
            "mish": (f.mish, a * numpy.tanh(numpy.log1p(numpy.exp(a)))), "softsign": (f.softsign, a / (1 + abs(a))),
            "logsigmoid": (f.logsigmoid, numpy.log(sigmoid(a))), "hardswish": (f.hardswish, a * (a + 3).clip(0, 6) / 6),
            "selu": (f.selu, 1.0507009873554805 * numpy.where(a > 0, a, 1.6732632423543772 * numpy.expm1(a))),
            "softmax": (lambda x: x.softmax(-1), softmax(a)), "log_softmax": (lambda x: x.log_softmax(0), numpy.log(softmax(a, 0))),
            "glu": (f.glu, a[:, :3] * sigmoid(a[:, 3:])), "tanhshrink": (f.tanhshrink, a - numpy.tanh(a)),
            "prelu": (lambda x: f.prelu(x, torch.full((1,), 0.3, dtype=dtype, device=device)), numpy.where(a > 0, a, 0.3 * a)),
        }[name]  # fmt: skip
        self.assertEqual(mine(x), want.astype(a.dtype), rtol=1e-5, atol=1e-5)

    @parametrize("reduction", ["none", "mean", "sum"])
    def test_losses(self, device, reduction):
        reduced = {"none": lambda a: a, "mean": numpy.mean, "sum": numpy.sum}[reduction]
        logits, target = reals((5, 4)), numpy.array([0, 3, 2, 1, 3])
        other = sigmoid(reals((5, 4), 1))
        x, t, o = self.on(device, logits, target, other)
        nll = -numpy.log(softmax(logits))[numpy.arange(5), target]
        check = lambda got, want: self.assertEqual(got, numpy.asarray(want))  # noqa: E731
        check(f.cross_entropy(x, t, reduction=reduction), reduced(nll))
        check(f.nll_loss(x.log_softmax(1), t, reduction=reduction), reduced(nll))
        check(f.mse_loss(x, o, reduction=reduction), reduced((logits - other) ** 2))
        check(f.l1_loss(x, o, reduction=reduction), reduced(abs(logits - other)))
        check(f.binary_cross_entropy_with_logits(x, o, reduction=reduction), reduced(-(other * numpy.log(sigmoid(logits)) + (1 - other) * numpy.log(1 - sigmoid(logits)))))
        check(f.binary_cross_entropy(x.sigmoid(), o, reduction=reduction), reduced(-(other * numpy.log(sigmoid(logits)) + (1 - other) * numpy.log(1 - sigmoid(logits)))))
        check(f.kl_div(x.log_softmax(1), o, reduction=reduction), reduced(other * (numpy.log(other) - numpy.log(softmax(logits)))))
        difference = abs(logits - other)
        check(f.huber_loss(x, o, reduction=reduction), reduced(numpy.where(difference < 1, difference**2 / 2, difference - 0.5)))
        kept = target != 3
        ignored = {"none": numpy.where(kept, nll, 0), "mean": nll[kept].mean(), "sum": nll[kept].sum()}[reduction]
        check(f.cross_entropy(x, t, ignore_index=3, reduction=reduction), ignored)
        weight = numpy.array([1.0, 2.0, 0.5, 3.0])
        weighted = weight[target] * nll
        check(f.cross_entropy(x, t, torch.tensor(weight, device=device), reduction=reduction), weighted.sum() / weight[target].sum() if reduction == "mean" else reduced(weighted))
        smooth = 0.9 * nll + 0.1 * -numpy.log(softmax(logits)).mean(1)
        check(f.cross_entropy(x, t, label_smoothing=0.1, reduction=reduction), reduced(smooth))

    def test_embeddings(self, device):
        table, index = reals((6, 3)), numpy.array([[1, 1, 4], [0, 5, 4]])
        w, i = torch.tensor(table, device=device, requires_grad=True), torch.tensor(index, device=device)
        got = f.embedding(i, w, padding_idx=4)
        self.assertEqual(got, table[index])
        got.sum().backward()
        self.assertEqual(w.grad[:, 0].tolist(), [1, 2, 0, 0, 0, 1])
        for mode in ("sum", "mean", "max"):
            self.assertEqual(f.embedding_bag(i, w.detach(), mode=mode), getattr(numpy, mode)(table[index], axis=1))
        offsets = torch.tensor([0, 2, 2], device=device)
        self.assertEqual(f.embedding_bag(i.flatten(), w.detach(), offsets, mode="sum"), numpy.stack([table[[1, 1]].sum(0), numpy.zeros(3), table[[4, 0, 5, 4]].sum(0)]))
        self.assertEqual(f.one_hot(i, 6).sum((0, 1)).tolist(), [1, 2, 0, 0, 2, 1])

    @parametrize("mask", ["none", "causal", "bool", "float"])
    @parametrize("heads", [(2, 2), (4, 2)], name_fn=lambda h: f"{h[0]}_query_{h[1]}_key_heads")
    def test_attention(self, device, mask, heads):
        q, k, v = reals((2, heads[0], 5, 4)), reals((2, heads[1], 6, 4), 1), reals((2, heads[1], 6, 4), 2)
        keep = numpy.tril(numpy.ones((5, 6), bool)) if mask == "causal" else numpy.arange(30).reshape(5, 6) % 4 != 1
        added = reals((5, 6), 3)
        scores = q @ numpy.repeat(k, heads[0] // heads[1], 1).swapaxes(-1, -2) / 2
        scores = scores + added if mask == "float" else numpy.where(keep, scores, -numpy.inf) if mask in ("bool", "causal") else scores
        want = softmax(scores) @ numpy.repeat(v, heads[0] // heads[1], 1)
        attn_mask = {"bool": keep, "float": added}.get(mask)
        arguments = {"attn_mask": None if attn_mask is None else torch.tensor(attn_mask, device=device), "is_causal": mask == "causal", "enable_gqa": heads[0] != heads[1]}
        tensors = self.on(device, q, k, v, grad=True)
        got = f.scaled_dot_product_attention(*tensors, **arguments)
        self.assertEqual(got, want)
        if mask != "bool":
            self.assertTrue(torch.autograd.gradcheck(lambda *a: f.scaled_dot_product_attention(*a, **arguments), tensors, fast_mode=True))

    @parametrize("kind", ["LSTM", "GRU", "RNN"])
    @parametrize("bidirectional", [False, True])
    def test_recurrent_layers(self, device, kind, bidirectional):
        torch.manual_seed(0)
        layer = getattr(torch.nn, kind)(3, 4, batch_first=True, bidirectional=bidirectional, dtype=torch.float64)
        state = {name: host(value) for name, value in layer.state_dict().items()}
        array = reals((2, 5, 3))

        def run(suffix, steps):
            h, c, outs = numpy.zeros((2, 4)), numpy.zeros((2, 4)), {}
            for t in steps:
                xs = array[:, t] @ state[f"weight_ih_l0{suffix}"].T + state[f"bias_ih_l0{suffix}"]
                hs = h @ state[f"weight_hh_l0{suffix}"].T + state[f"bias_hh_l0{suffix}"]
                if kind == "RNN":
                    h = numpy.tanh(xs + hs)
                elif kind == "LSTM":
                    i, forget, g, o = numpy.split(xs + hs, 4, 1)
                    c = sigmoid(forget) * c + sigmoid(i) * numpy.tanh(g)
                    h = sigmoid(o) * numpy.tanh(c)
                else:
                    (rx, zx, nx), (rh, zh, nh) = numpy.split(xs, 3, 1), numpy.split(hs, 3, 1)
                    z = sigmoid(zx + zh)
                    h = (1 - z) * numpy.tanh(nx + sigmoid(rx + rh) * nh) + z * h
                outs[t] = h
            return numpy.stack([outs[t] for t in range(5)], 1)

        want = run("", range(5))
        if bidirectional:
            want = numpy.concatenate([want, run("_reverse", range(4, -1, -1))], 2)
        layer.to(device)
        x = torch.tensor(array, device=device, requires_grad=True)
        self.assertEqual(layer(x)[0], want)
        self.assertTrue(torch.autograd.gradcheck(lambda x: layer(x)[0], (x,), fast_mode=True))
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True)
        out, lengths = torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True)
        self.assertEqual(lengths.tolist(), [5, 3])
        self.assertEqual(out[0], want[0])
        self.assertEqual(out[1, :3, :4], want[1, :3, :4])
        self.assertEqual(out[1, 3:].any().item(), False)

    @parametrize("name", ["SGD", "momentum", "nesterov", "Adam", "AdamW", "Adagrad", "RMSprop"])
    @parametrize("implementation", ["forloop", "foreach", "fused"])
    def test_optimizers(self, device, name, implementation):
        if implementation == "fused" and name == "RMSprop":
            self.skipTest("RMSprop has no fused implementation")
        make, update = {
            "SGD": (lambda p, **k: torch.optim.SGD(p, 0.1, weight_decay=0.01, **k), lambda w, g, s, t: w - 0.1 * (g + 0.01 * w)),
            "momentum": (lambda p, **k: torch.optim.SGD(p, 0.1, momentum=0.9, **k), lambda w, g, s, t: w - 0.1 * s.setdefault("m", Moving(0.9, 1))(g)),
            "nesterov": (lambda p, **k: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, **k), lambda w, g, s, t: w - 0.1 * (g + 0.9 * s.setdefault("m", Moving(0.9, 1))(g))),
            "Adam": (lambda p, **k: torch.optim.Adam(p, 0.1, **k), adam),
            "AdamW": (lambda p, **k: torch.optim.AdamW(p, 0.1, weight_decay=0.02, **k), lambda w, g, s, t: adam(w * (1 - 0.1 * 0.02), g, s, t)),
            "Adagrad": (lambda p, **k: torch.optim.Adagrad(p, 0.1, **k), lambda w, g, s, t: w - 0.1 * g / (numpy.sqrt(s.setdefault("v", Moving(1, 1))(g * g)) + 1e-10)),
            "RMSprop": (lambda p, **k: torch.optim.RMSprop(p, 0.1, **k), lambda w, g, s, t: w - 0.1 * g / (numpy.sqrt(s.setdefault("v", Moving(0.99, 0.01))(g * g)) + 1e-8)),
        }[name]  # fmt: skip
        arrays, states = [reals((3, 4)), reals((5,), 1)], [{}, {}]
        parameters = self.on(device, *arrays, grad=True)
        optimizer = make(parameters, **({} if implementation == "forloop" else {implementation: True}), **({"foreach": False} if implementation == "forloop" else {}))
        for step in range(1, 5):
            loss = sum((p**3 / 3 + p).sum() for p in parameters)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            arrays = [update(array, array**2 + 1, state, step) for array, state in zip(arrays, states)]
        for parameter, array in zip(parameters, arrays):
            self.assertEqual(parameter.detach(), array)

    def test_clipping_scaling_and_averages_of_gradients(self, device):
        (p,) = self.on(device, reals((10,)), grad=True)
        (p * 3).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_([p], 1.0)
        self.assertEqual(norm.item(), 3 * math.sqrt(10))
        self.assertEqual(p.grad, numpy.full(10, 1 / math.sqrt(10)), atol=1e-6, rtol=1e-6)
        torch.nn.utils.clip_grad_value_([p], 0.1)
        self.assertEqual(p.grad, numpy.full(10, 0.1))
        if self.device_type != "cpu":
            scaler = torch.amp.GradScaler(self.device_type, init_scale=8.0)
            optimizer = torch.optim.SGD([p], 0.0)
            scaler.scale((p * p).sum()).backward()
            scaler.unscale_(optimizer)
            p.grad[0] = math.inf
            scaler.step(optimizer)
            scaler.update()
            self.assertEqual(scaler.get_scale(), 8.0)

    @parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
    def test_resizing_of_images(self, device, mode):
        array = reals((1, 2, 4, 4))
        (x,) = self.on(device, array)
        if mode == "nearest":
            self.assertEqual(f.interpolate(x, scale_factor=2), array.repeat(2, 2).repeat(2, 3))
        elif mode == "area":
            self.assertEqual(f.interpolate(x, (2, 2), mode="area"), array.reshape(1, 2, 2, 2, 2, 2).mean((3, 5)))
        else:
            ramp = torch.arange(8.0, dtype=torch.float64, device=device).expand(1, 1, 8, 8)
            big = f.interpolate(ramp, (15, 15), mode=mode, align_corners=True)
            self.assertEqual(big[0, 0, 3, 4:11], numpy.linspace(2, 5, 7))
        identity = f.affine_grid(torch.tensor([[[1.0, 0, 0], [0, 1, 0]]], dtype=x.dtype, device=device), (1, 2, 4, 4), align_corners=False)
        self.assertEqual(f.grid_sample(x, identity, align_corners=False), array)


class Moving:
    """A running sum: value = decay * value + share * number, from zero."""

    def __init__(self, decay, share):
        self.decay, self.share, self.value = decay, share, 0

    def __call__(self, number):
        self.value = self.decay * self.value + self.share * number
        return self.value


def adam(w, g, state, step):
    m = state.setdefault("m", Moving(0.9, 0.1))(g) / (1 - 0.9**step)
    v = state.setdefault("v", Moving(0.999, 0.001))(g * g) / (1 - 0.999**step)
    return w - 0.1 * m / (numpy.sqrt(v) + 1e-8)


instantiate_device_type_tests(TestNN, globals())

if __name__ == "__main__":
    run_tests()
