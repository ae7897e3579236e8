"""Oracles: the definitions in plain loops, exhaustive searches and hand-written steps. Slow and
obvious, they are what the library is compared with, and use nothing of it. All are in one file, so
that each definition is there once."""
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

# equations 1 to 4 and Algorithm 1


def saliency(grad, norm):
    """Equation 1: gradient (B, C, H, W) -> maps (B, 1, H, W)."""
    out = torch.zeros(len(grad), 1, *grad.shape[2:], dtype=grad.dtype)
    for n in range(len(grad)):
        for i in range(grad.shape[2]):
            for j in range(grad.shape[3]):
                g = [grad[n, c, i, j].item() for c in range(grad.shape[1])]
                l2 = math.sqrt(sum(v * v for v in g))
                out[n, 0, i, j] = l2 if norm == "l2" else sum(map(abs, g)) / len(g)
    return out


def blur(s, sigma, radius):
    """Gaussian blur of one map (h, w), the border mirrored without repeating its last pixel."""
    def mirror(i, n):
        while n > 1 and not 0 <= i < n:
            i = -i if i < 0 else 2 * (n - 1) - i
        return i if n > 1 else 0

    h, w = s.shape
    reach = range(-radius, radius + 1)
    weight = {(p, q): math.exp(-(p * p + q * q) / (2 * sigma**2)) for p in reach for q in reach}
    out = torch.zeros_like(s)
    for i in range(h):
        for j in range(w):
            out[i, j] = sum(k * s[mirror(i + p, h), mirror(j + q, w)]
                            for (p, q), k in weight.items())
    return out / sum(weight.values())


def shift(z, tau):
    """Equation 3 for one image (c, h, w)."""
    out = torch.zeros_like(z)
    for i in range(z.shape[1]):
        for j in range(z.shape[2]):
            if 0 <= i - tau[0] < z.shape[1] and 0 <= j - tau[1] < z.shape[2]:
                out[:, i, j] = z[:, i - tau[0], j - tau[1]]
    return out


def mask(a, b):
    """Equation 2 for two maps (h, w)."""
    out = torch.zeros_like(a)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            if a[i, j] + b[i, j] > 0:
                out[i, j] = a[i, j] / (a[i, j] + b[i, j])
    return out


def total_saliency(a, b, tau):
    """Equation 4 for two maps (h, w) and shifts (n, 2), one by one: (n,)."""
    moved = [shift(b[None], t)[0] for t in tau.tolist()]
    return torch.stack([(mask(a, z) * a + (1 - mask(a, z)) * z).sum() for z in moved])


def total_saliency_of_masks(a, b, tau):
    """Equation 4 for two maps (h, w) and shifts (n, 2) of less than a side, (n,): whole masks."""
    h, w = a.shape
    frames = F.pad(b, (w, w, h, h)).unfold(0, h, 1).unfold(1, w, 1)
    moved = frames[h - tau[:, 0], w - tau[:, 1]]                   # (n, h, w)
    m = torch.where(a + moved > 0, a / (a + moved), 0)             # (n, h, w)
    return (m * a + (1 - m) * moved).sum((1, 2))


def sage(x, y, s, pair, lam, tau):
    """Algorithm 1, lines 2 to 7, one image at a time; returns images, labels, shifts."""
    images, labels, shifts = [], [], []
    for n in range(len(x)):
        k = pair[n]
        a, b = lam * s[n, 0] / s[n, 0].sum(), (1 - lam) * s[k, 0] / s[k, 0].sum()
        best = tau[total_saliency(a, b, tau).argmax()].tolist()
        m = mask(a, shift(b[None], best)[0])
        images.append(m * x[n] + (1 - m) * shift(x[k], best))
        labels.append(m.mean() * y[n] + (1 - m.mean()) * y[k])
        shifts.append(best)
    return torch.stack(images), torch.stack(labels), torch.tensor(shifts)


def without_guidance(x, y, s, pair, lam, tau, reading):
    """SAGE with another mask at its own shift, pixel by pixel; returns images and labels.

    reading: "whole", "rounded", "box" (of the partner, around its peak) or "uniform".
    """
    _, _, shifts = sage(x, y, s, pair, lam, tau)
    images, labels = torch.zeros_like(x), torch.zeros_like(y)
    h, w = x.shape[2:]
    for n in range(len(x)):
        k, (down, right) = pair[n], shifts[n].tolist()
        top, left, bottom, end = boxes_of_peak(s[k, 0].numpy(), lam)
        for i in range(h):
            for j in range(w):
                r, c = i - down, j - right  # its place before the move
                covered = 0 <= r < h and 0 <= c < w
                own, other = lam * s[n, 0, i, j] / s[n, 0].sum(), 0.0
                if covered:
                    other = (1 - lam) * s[k, 0, r, c] / s[k, 0].sum()
                m = {"whole": float(not covered), "rounded": float(own > other), "uniform": lam,
                     "box": float(not (covered and top <= r < bottom and left <= c < end))}[reading]
                images[n, :, i, j] = m * x[n, :, i, j] + (1 - m) * (x[k, :, r, c] if covered else 0)
                labels[n] += (m * y[n] + (1 - m) * y[k]) / (h * w)
    return images, labels


def weighted_gradient(losses, shares, weights):
    """Gradient reuse, Section 3.4: the sum of share * gradient of a loss, for each weight; one
    backward pass for each loss."""
    found = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses]
    return [sum(a * g for a, g in zip(shares, each, strict=True))
            for each in zip(*found, strict=True)]


def bce(logits, y):
    """Binary cross-entropy on the softmax, mean over images and classes."""
    total = 0.0
    for row, want in zip(logits.tolist(), y.tolist(), strict=True):
        top = max(row)
        e = [math.exp(v - top) for v in row]
        for p, t in zip([v / sum(e) for v in e], want, strict=True):
            total -= t * max(math.log(p), -100) + (1 - t) * max(math.log(1 - p), -100)
    return total / logits.numel()


# the other methods


def mixup(x, y, pair, lam):
    """Mixup one image at a time, lam (B,): images (B, C, H, W) and labels (B, K)."""
    weigh = [lambda z, n=n: lam[n] * z[n] + (1 - lam[n]) * z[pair[n]] for n in range(len(x))]
    return torch.stack([of(x) for of in weigh]), torch.stack([of(y) for of in weigh])


def pasted(x, other, boxes):
    """Images x (B, C, H, W) with the pixels of `other` inside boxes (top, left, bottom, right)."""
    out = x.clone()
    for n, (top, left, bottom, right) in enumerate(boxes):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                if top <= i < bottom and left <= j < right:
                    out[n, :, i, j] = other[n, :, i, j]
    return out


def boxes_of_peak(s, lam):
    """SaliencyMix: the box around the peak of a map (h, w), [top, left, bottom, right]."""
    h, w = s.shape
    peak = int(np.argmax(s))
    row, column = peak // w, peak % w
    half = [int(side * math.sqrt(1 - lam)) // 2 for side in (h, w)]
    return [max(row - half[0], 0), max(column - half[1], 0), min(row + half[0], h),
            min(column + half[1], w)]


def grids(h, w, count):
    """Every labelling of a small grid, each (h, w), in turn."""
    for flat in itertools.product(range(count), repeat=h * w):
        yield np.array(flat).reshape(h, w)


def convex_energy(labels, unary, down, right):
    """Puzzle Mix's energy of one labelling (h, w); unary (3, h, w)."""
    h, w = labels.shape
    total = 0.0
    for i in range(h):
        for j in range(w):
            total += unary[labels[i, j], i, j]
            if i + 1 < h:
                total += down[i, j] * (labels[i, j] / 2 - labels[i + 1, j] / 2) ** 2
            if j + 1 < w:
                total += right[i, j] * (labels[i, j] / 2 - labels[i, j + 1] / 2) ** 2
    return total


def puzzle_prior(lam, eta, n):
    """Puzzle Mix's cost of the three labels of a block of n x n, for the binomial prior."""
    shares = lam**2, 2 * lam * (1 - lam), (1 - lam)**2
    return [-(eta / n**2) * math.log(share + 1e-8) for share in shares]


def potts_energy(labels, cost, apart, weight):
    """Co-Mixup's energy of one labelling (h, w); cost (h, w, L)."""
    h, w = labels.shape
    total = 0.0
    for i in range(h):
        for j in range(w):
            total += cost[i, j, labels[i, j]]
            if i + 1 < h:
                total += weight * apart[labels[i, j], labels[i + 1, j]]
            if j + 1 < w:
                total += weight * apart[labels[i, j], labels[i, j + 1]]
    return total


def puzzle_energy(shown, pixels, partner, s, s_partner, lam, beta, gamma, eta, cell):
    """The energy of Puzzle Mix for one image: `shown` (n, n) is the share of the image in each
    block.

    Read off the definition: each block loses the saliency it does not show; a seam costs the
    unlikeness of the two images that meet there (split into a part of each block and a coupling),
    and beta for unlike labels.
    """
    n = len(shown)
    block = pixels.shape[1] // n
    k = block // cell
    pooled = [p.reshape(3, n * k, cell, n * k, cell).mean((2, 4)) for p in (pixels, partner)]
    loss = [m.reshape(n, block, n, block).mean((1, 3)) for m in (s, s_partner)]
    loss = [m / m.sum() for m in loss]
    b, total = beta / n / 16, 0.0
    prior = puzzle_prior(lam, eta, n)
    for i in range(n):
        for j in range(n):
            m = shown[i, j]
            total += (1 - m) * loss[0][i, j] + m * loss[1][i, j]
            total += prior[round(2 * (1 - m))]
            for di, dj in ((1, 0), (0, 1)):
                if i + di >= n or j + dj >= n:
                    continue
                other = shown[i + di, j + dj]

                def seam(a, c, di=di, i=i, j=j):
                    if di:
                        one = pooled[a][:, (i + 1) * k - 1, j * k:(j + 1) * k]
                        two = pooled[c][:, (i + 1) * k, j * k:(j + 1) * k]
                    else:
                        one = pooled[a][:, i * k:(i + 1) * k, (j + 1) * k - 1]
                        two = pooled[c][:, i * k:(i + 1) * k, (j + 1) * k]
                    return b * gamma * np.abs(one - two).mean(0).mean()

                p = {(a, c): seam(a, c) for a in (0, 1) for c in (0, 1)}
                total += (1 - m) * (p[1, 0] + p[1, 1]) / 2 + (1 - other) * (p[0, 1] + p[1, 1]) / 2
                total += m * (p[0, 1] + p[0, 0]) / 2 + other * (p[1, 0] + p[0, 0]) / 2
                total += ((p[0, 1] + p[1, 0] - p[0, 0] - p[1, 1]) / 2 + b) * (m - other) ** 2
    return total


def transport(s, z, rounds, t_eps):
    """Puzzle Mix's plan, dense: s, z (t, t) -> (places,), the source that comes there or -1."""
    t = len(s)
    n = t * t
    cost = np.zeros((n, n), dtype=np.float32)
    for a in range(n):
        for b in range(n):
            far = ((a // t - b // t) ** 2 + (a % t - b % t) ** 2) / (t - 1) ** 2
            gain = np.float32(s[a // t, a % t]) * np.float32(z[b // t, b % t])
            cost[a, b] = np.float32(t_eps) * np.float32(far) - gain
    for _ in range(rounds):
        plan = np.zeros((n, n))
        plan[np.arange(n), cost.argmin(1)] = 1
        win = np.zeros((n, n))
        win[(plan * cost).argmin(0), np.arange(n)] = 1
        cost = cost + (plan * (1 - win)).astype(np.float32)
        plan = plan * win
    return np.where(plan.sum(0) > 0, plan.argmax(0), -1)


def comixup_objective(z, cost, beta, tau):
    """Co-Mixup's objective of a partition: z (n, 4, 4, n) shares, cost (n, 4, 4)."""
    n, side, total = len(z), z.shape[1], 0.0
    for i in range(n):
        for a in range(side):
            for b in range(side):
                total += (z[i, a, b] * cost[:, a, b]).sum()
                if a + 1 < side:
                    total += beta / 2 * ((z[i, a, b] - z[i, a + 1, b]) ** 2).sum()
                if b + 1 < side:
                    total += beta / 2 * ((z[i, a, b] - z[i, a, b + 1]) ** 2).sum()
        total += sum(tau * (z[i].sum((0, 1)) * z[j].sum((0, 1))).sum() for j in range(n) if j != i)
    return total


def greedy_cycle(apart):
    """GuidedMixup's pairs: from the farthest two on, each with the farthest that is free, (n,)."""
    apart = apart - np.diag(np.full(len(apart), np.inf))
    first = at = int(apart.argmax() // len(apart))
    partner, free = {}, set(range(len(apart))) - {first}
    while free:
        partner[at] = max(sorted(free), key=lambda k: apart[at, k])
        at = partner[at]
        free.remove(at)
    return [{**partner, at: first}[k] for k in range(len(apart))]


def top_cells(s, threshold, cells):
    """R-Mix: the pixels of a map (H, W) whose cell is above its percentile, as 0 and 1, (H, W)."""
    h, w = s.shape
    tall, wide = math.ceil(h / cells), math.ceil(w / cells)
    found = {(a, b): s[a:a + tall, b:b + wide].mean().item()
             for a in range(0, h, tall) for b in range(0, w, wide)}
    limit = sorted(found.values())[math.floor(threshold * (len(found) - 1))]
    top = torch.zeros(h, w)
    for (a, b), value in found.items():
        top[a:a + tall, b:b + wide] = float(value > limit)
    return top


# networks, in training mode, of their weights v: name -> tensor

def batch_norm(z, v, name):
    """BatchNorm with the statistics of the batch (B, C, H, W)."""
    return F.batch_norm(z, None, None, v[f"{name}.weight"], v[f"{name}.bias"], training=True)


def wide_resnet(v, x):
    """The authors' WRN-16: stride on the second convolution, biases, the shortcut on the raw input,
    no dropout; images (B, 3, H, W) -> logits."""
    def norm(z, name):
        return F.relu(batch_norm(z, v, name))

    def conv(z, name, stride=1, padding=1):
        return F.conv2d(z, v[f"{name}.weight"], v[f"{name}.bias"], stride, padding)

    h = conv(x, "conv1")
    for k, n in itertools.product((1, 2, 3), (0, 1)):
        block, stride = f"layer{k}.{n}", 2 if k > 1 and n == 0 else 1
        out = conv(norm(h, f"{block}.bn1"), f"{block}.conv1")
        out = conv(norm(out, f"{block}.bn2"), f"{block}.conv2", stride)
        shortcut = f"{block}.shortcut.0"
        h = out + (conv(h, shortcut, stride, 0) if f"{shortcut}.weight" in v else h)
    return F.linear(norm(h, "bn1").mean((2, 3)), v["linear.weight"], v["linear.bias"])


def resnext(v, x):
    """The authors' ResNeXt29, 4 groups: images (B, 3, H, W) -> logits."""
    def conv(z, name, stride=1, padding=0, groups=1):
        return F.conv2d(z, v[f"{name}.weight"], None, stride, padding, groups=groups)

    h = F.relu(batch_norm(conv(x, "conv_1_3x3", padding=1), v, "bn_1"))
    for k, n in itertools.product((1, 2, 3), (0, 1, 2)):
        block, stride = f"stage_{k}.{n}", 2 if k > 1 and n == 0 else 1
        out = F.relu(batch_norm(conv(h, f"{block}.conv_reduce"), v, f"{block}.bn_reduce"))
        out = conv(out, f"{block}.conv_conv", stride, 1, 4)
        out = conv(F.relu(batch_norm(out, v, f"{block}.bn")), f"{block}.conv_expand")
        if n == 0:
            h = batch_norm(conv(h, f"{block}.downsample.0", stride), v, f"{block}.downsample.1")
        h = F.relu(batch_norm(out, v, f"{block}.bn_expand") + h)
    return F.linear(h.mean((2, 3)), v["classifier.weight"], v["classifier.bias"])


def preactresnet(v, x):
    """The authors' PreActResNet with one block a stage: images (B, 3, 32, 32) -> logits."""
    def norm(z, name):
        return F.relu(batch_norm(z, v, name))

    h = F.conv2d(x, v["conv1.weight"], padding=1)
    for k, stride in enumerate((1, 2, 2, 2), 1):
        block = f"layer{k}.0"
        a = norm(h, f"{block}.bn1")
        out = F.conv2d(a, v[f"{block}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(norm(out, f"{block}.bn2"), v[f"{block}.conv2.weight"], padding=1)
        h = out + (h if stride == 1
                   else F.conv2d(a, v[f"{block}.shortcut.0.weight"], stride=stride))
    return F.linear(F.avg_pool2d(h, 4).flatten(1), v["linear.weight"], v["linear.bias"])


def vision_transformer(v, x):
    """ViT-Ti with patches of 4 x 4: images (B, 3, H, W) -> logits, and the last block's attention
    of the class token to the patches, (B, 1, H/4, W/4), by loops over images, heads and tokens."""
    n, (rows, columns) = len(x), (x.shape[2] // 4, x.shape[3] // 4)
    position = v["position"]
    if (rows, columns) != (8, 8):
        position = F.interpolate(position, (rows, columns), mode="bicubic")
    z = [[v["class_token"][0, 0]] for _ in range(n)]  # of each image, a list of tokens
    filters = v["patches.weight"].flatten(1)
    for image, tokens in zip(x, z, strict=True):
        for i in range(rows):
            for j in range(columns):
                patch = image[:, 4 * i:4 * i + 4, 4 * j:4 * j + 4].flatten()
                tokens.append(filters @ patch + v["patches.bias"] + position[0, :, i, j])
    z = torch.stack([torch.stack(tokens) for tokens in z])
    blocks = [f"stage{k}.{j}" for k, many in ((1, 4), (2, 4), (3, 3)) for j in range(many)]
    for block in (*blocks, "last_block"):
        z, attention = _transformer_block(v, z, block)
    out = _layer_norm(v, z[:, 0], "norm")
    logits = F.linear(out, v["linear.weight"], v["linear.bias"])
    return logits, attention[:, 1:].reshape(n, 1, rows, columns)


def _layer_norm(v, z, name):
    centred = z - z.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / spread * v[f"{name}.weight"] + v[f"{name}.bias"]


def _transformer_block(v, z, name, heads=3):
    """The block's output, and the attention of the first token, mean over heads, (B, T)."""
    def linear(z, layer):
        return F.linear(z, v[f"{name}.{layer}.weight"], v[f"{name}.{layer}.bias"])

    n, many, channels = z.shape
    size = channels // heads
    q, k, value = linear(_layer_norm(v, z, f"{name}.norm1"), "qkv").split(channels, -1)
    mixed, first = torch.zeros_like(z), torch.zeros(n, many, dtype=z.dtype)
    for i in range(n):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for t in range(many):
                scores = torch.stack([q[i, t, part] @ k[i, u, part] for u in range(many)])
                weights = (scores / math.sqrt(size)).exp()
                weights = weights / weights.sum()
                mixed[i, t, part] = sum(w * value[i, u, part] for u, w in enumerate(weights))
                if t == 0:
                    first[i] += weights / heads
    z = z + linear(mixed, "proj")
    hidden = linear(_layer_norm(v, z, f"{name}.norm2"), "fc1")
    return z + linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, "fc2"), first


def attention_share(box, attention, h, w, area, pooling):
    """TransMix's weight of an image's own label, for one box (top, left, bottom, right) of its
    partner in h x w pixels and one map (rows, columns) of patches, by loops over pixels."""
    rows, columns = attention.shape
    tall, wide = h // rows, w // columns
    top, left, bottom, right = box

    def inside(i, j):
        return top <= i < bottom and left <= j < right

    partner = total = 0.0
    for r in range(rows):
        for c in range(columns):
            if pooling == "nearest":
                covered = float(inside(r * tall, c * wide))
            else:
                covered = sum(inside(r * tall + i, c * wide + j)
                              for i in range(tall) for j in range(wide)) / (tall * wide)
            partner += covered * attention[r, c].item()
            total += attention[r, c].item()
    pasted = sum(inside(i, j) for i in range(h) for j in range(w)) / (h * w)
    return 1 - (area * pasted + (1 - area) * partner / total)


def resnet12(v, x):
    """ResNet12 of few-shot learning: images (B, 3, H, W) -> logits."""
    def layer(z, conv, bn, padding):
        return batch_norm(F.conv2d(z, v[f"{conv}.weight"], padding=padding), v, bn)

    h = x
    for name in ("layer1", "layer2", "layer3", "layer4"):
        out = F.leaky_relu(layer(h, f"{name}.conv1", f"{name}.bn1", 1), 0.1)
        out = F.leaky_relu(layer(out, f"{name}.conv2", f"{name}.bn2", 1), 0.1)
        out = layer(out, f"{name}.conv3", f"{name}.bn3", 1)
        out = out + layer(h, f"{name}.shortcut.0", f"{name}.shortcut.1", 0)
        h = F.max_pool2d(F.leaky_relu(out, 0.1), 2)
    return F.linear(h.mean((2, 3)), v["linear.weight"], v["linear.bias"])


# training, evaluation, statistics

def prototype_accuracies(features, drawn, shots, distance):
    """Accuracy of each episode: one query at a time against one class at a time. features (N, D);
    drawn (episodes, ways, shots + queries) indices."""
    z, result = features.double().numpy(), []
    for episode in drawn.tolist():
        means, right = [np.mean([z[k] for k in row[:shots]], axis=0) for row in episode], []
        for own, row in enumerate(episode):
            for q in (z[k] for k in row[shots:]):
                near = [q @ m / (np.linalg.norm(q) * np.linalg.norm(m)) if distance == "cosine"
                        else -np.linalg.norm(q - m) for m in means]
                right.append(np.argmax(near) == own)
        result.append(100 * np.mean(right))
    return torch.tensor(result)


def sgd_step(weights, speed, lr, momentum, weight_decay):
    """SGD with Nesterov momentum and weight decay, in place, written out."""
    with torch.no_grad():
        for p, v in zip(weights, speed, strict=True):
            g = p.grad + weight_decay * p
            v.mul_(momentum).add_(g)
            p -= lr * (g + momentum * v)


def pgd(net, x, y, epsilon, size, steps, norm):
    """Projected gradient ascent of one image (1, C, H, W) in [0, 1], step by step."""
    start = x
    for _ in range(steps):
        x = x.clone().requires_grad_()
        g, = torch.autograd.grad(F.cross_entropy(net(x), y), x)
        x = (x + size * (g.sign() if norm == "linf" else g / g.norm())).detach()
        d = x - start
        d = d.clamp(-epsilon, epsilon) if norm == "linf" else d * min(1, epsilon / float(d.norm()))
        x = (start + d).clamp(0, 1)
    return x


def calibration_error(p, labels, bins):
    """Expected calibration error of probabilities p (N, K): a loop over bins and images."""
    total = 0.0
    for k in range(bins):
        inside = [n for n in range(len(p)) if k / bins <= p[n].max() < (k + 1) / bins
                  or (k + 1 == bins and p[n].max() == 1)]
        gaps = [int(p[n].argmax() == labels[n]) - float(p[n].max()) for n in inside]
        total += abs(sum(gaps)) / len(p)
    return total


def error_of_paired_images(ours, base):
    """Mean difference of two methods and its standard error, from which images (N,) are right in
    each run: a loop over images."""
    gaps = [sum(float(a[n]) - float(b[n]) for a, b in zip(ours, base, strict=True)) / len(ours)
            for n in range(len(ours[0]))]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
    return mean, math.sqrt(variance / len(gaps))


def half_width(level, seeds, n, images):
    """Half an interval: Student's of n seeds and the normal of the test set, added as squares."""
    return math.hypot(stats.t.ppf(1 - level / 2, n - 1) * seeds,
                      stats.norm.ppf(1 - level / 2) * images)


def grid_energy(labels, cost, apart, down, right):
    """Cost of labels (h, w) on a grid: each site's, and each two neighbours' times their weight."""
    h, w = labels.shape
    total = sum(cost[i, j, labels[i, j]] for i in range(h) for j in range(w))
    total += sum(down[i, j] * apart[labels[i, j], labels[i + 1, j]]
                 for i in range(h - 1) for j in range(w))
    return total + sum(right[i, j] * apart[labels[i, j], labels[i, j + 1]]
                       for i in range(h) for j in range(w - 1))
