"""The rivals' definitions in loops: slow, obvious, and what the library is compared with."""
import itertools
import math

import numpy as np


def boxes_of_peak(s, lam):
    h, w = s.shape
    peak = int(np.argmax(s))
    row, column = peak // w, peak % w
    half = [int(side * math.sqrt(1 - lam)) // 2 for side in (h, w)]
    return [
        max(row - half[0], 0),
        max(column - half[1], 0),
        min(row + half[0], h),
        min(column + half[1], w)
    ]


def grids(h, w, count):
    """Every labelling of a small grid."""
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
    unlikeness of the two pictures that meet there (split into a part of each block and a coupling),
    and beta for unlike labels.
    """
    n = len(shown)
    block = pixels.shape[1] // n
    k = block // cell
    pooled = [p.reshape(3, n * k, cell, n * k, cell).mean((2, 4)) for p in (pixels, partner)]
    loss = [m.reshape(n, block, n, block).mean((1, 3)) for m in (s, s_partner)]
    loss = [m / m.sum() for m in loss]
    b, total = beta / n / 16, 0.0
    binomial = (lam**2, 2 * lam * (1 - lam), (1 - lam)**2)
    for i in range(n):
        for j in range(n):
            m = shown[i, j]
            total += (1 - m) * loss[0][i, j] + m * loss[1][i, j]
            total += -(eta / n**2) * math.log(binomial[round(2 * (1 - m))] + 1e-8)
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
    """Puzzle Mix's plan with dense matrices: s, z (t, t) -> (places,), the source that comes there
    or -1."""
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
