"""The definitions in plain loops, one pixel at a time: slow, obvious, and what the library is
compared with."""
import math

import torch


def saliency(grad, norm):
    out = torch.zeros(len(grad), 1, *grad.shape[2:], dtype=grad.dtype)
    for n in range(len(grad)):
        for i in range(grad.shape[2]):
            for j in range(grad.shape[3]):
                g = [grad[n, c, i, j].item() for c in range(grad.shape[1])]
                out[n, 0, i,
                    j] = math.sqrt(sum(v * v
                                       for v in g)) if norm == "l2" else sum(map(abs, g)) / len(g)
    return out


def blur(s, sigma, radius):
    """Gaussian blur of one map (h, w), the border mirrored without repeating its last pixel."""
    def mirror(i, n):
        while n > 1 and not 0 <= i < n:
            i = -i if i < 0 else 2 * (n - 1) - i
        return i if n > 1 else 0

    h, w = s.shape
    reach = range(-radius, radius + 1)
    weight = {(p, q): math.exp(-(p * p + q * q) / (2 * sigma * sigma))
              for p in reach
              for q in reach}
    out = torch.zeros_like(s)
    for i in range(h):
        for j in range(w):
            out[i,
                j] = sum(k * s[mirror(i + p, h), mirror(j + q, w)] for (p, q), k in weight.items())
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
    """Equation 4 for two maps (h, w) and one shift, literally."""
    b = shift(b[None], tau)[0]
    m = mask(a, b)
    return (m * a + (1 - m) * b).sum()


def sage(x, y, s, pair, lam, tau):
    """Algorithm 1, lines 2 to 7, one image at a time; returns images, labels, shifts."""
    images, labels, shifts = [], [], []
    for n in range(len(x)):
        k = pair[n]
        a, b = lam * s[n, 0] / s[n, 0].sum(), (1 - lam) * s[k, 0] / s[k, 0].sum()
        values = [total_saliency(a, b, t) for t in tau.tolist()]
        best = tau[values.index(max(values))].tolist()
        m = mask(a, shift(b[None], best)[0])
        images.append(m * x[n] + (1 - m) * shift(x[k], best))
        labels.append(m.mean() * y[n] + (1 - m.mean()) * y[k])
        shifts.append(best)
    return torch.stack(images), torch.stack(labels), torch.tensor(shifts)


def bce(logits, y):
    """Binary cross-entropy on the softmax, mean over images and classes."""
    total = 0.0
    for row, want in zip(logits.tolist(), y.tolist(), strict=True):
        top = max(row)
        e = [math.exp(v - top) for v in row]
        for p, t in zip([v / sum(e) for v in e], want, strict=True):
            total -= t * max(math.log(p), -100) + (1 - t) * max(math.log(1 - p), -100)
    return total / logits.numel()
