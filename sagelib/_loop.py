"""What a training loop of one's own brings along: wrapped networks, targets of two kinds, half precision, and one
backward pass, which is to bring the gradient of two."""
import torch
import torch.nn.functional as F
from torch.nn.parallel import DataParallel, DistributedDataParallel


def local(model):
    """The network inside DistributedDataParallel or DataParallel: a pass through it concerns no other process."""
    inner = getattr(model, "_orig_mod", model)
    return local(inner.module) if isinstance(inner, (DistributedDataParallel, DataParallel)) else model


def is_half(x):
    """Whether a pass over these images is in float16, whose gradients underflow."""
    kind = x.device.type
    return x.dtype == torch.float16 or (
        torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16)


def logits_of(out, classes):
    """Logits (B, classes) of what a network gave: a tensor, the first of several, or something that has .logits."""
    out = getattr(out, "logits", out)
    out = out[0] if isinstance(out, (tuple, list)) else out
    if out.ndim != 2 or out.shape[1] != classes:
        raise ValueError(f"the network gives {tuple(out.shape)}; with num_classes={classes} it must give logits "
                         f"(B, {classes})")
    return out


def soft_labels(x, target, classes, smoothing=0.0):
    """Labels (B, classes), float32, for images x (B, C, H, W), from class numbers (B,) or soft targets (B, classes)."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError("this is torch.inference_mode, where nothing can be trained: mix in the training loop")
    if x.ndim != 4 or not x.is_floating_point() or len(x) == 0:
        raise ValueError(f"images must be normalised floats (B, C, H, W), not {x.dtype} {tuple(x.shape)}")
    if target.shape == (len(x),) and target.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8):
        if target.is_cpu and not 0 <= int(target.min()) <= int(target.max()) < classes:
            raise ValueError(f"class numbers must be from 0 to {classes - 1}, not {int(target.min())} to "
                             f"{int(target.max())}")
        return F.one_hot(target.long(), classes).float() * (1 - smoothing) + smoothing / classes
    if target.shape != (len(x), classes) or not target.is_floating_point():
        raise ValueError(f"targets must be class numbers ({len(x)},) or soft labels ({len(x)}, {classes}), floats; "
                         f"they are {target.dtype} {tuple(target.shape)}")
    return target.detach().float()


def carried(net, x, loss_of, scale=None):
    """loss_of(net(x)) and its gradient by x (B, C, H, W); the weights' gradient is computed now and kept in the loss.

    When a later .backward() comes through the loss, the weights receive it together with all else: once, as
    DistributedDataParallel, gradient scalers and trainers that clear gradients before .backward() expect. `scale`, a
    0-d tensor, is a GradScaler's: the pass is scaled by it, the weights' gradient is scaled back.
    """
    z, weights = x.detach().requires_grad_(), [p for p in net.parameters() if p.requires_grad]
    with torch.enable_grad():
        loss = loss_of(net(z))
        scaled = loss if scale is None else scale * loss
        grad, *gradients = torch.autograd.grad(scaled, [z, *weights], allow_unused=True)
    if scale is not None:
        gradients = [None if g is None else g / scale.to(g.dtype) for g in gradients]
    return _Carry.apply(loss.detach(), gradients, *weights), grad


class _Carry(torch.autograd.Function):
    """A loss that is known, with its gradient by the weights: nothing is computed again."""

    @staticmethod
    def forward(ctx, loss, gradients, *weights):
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, out):
        return None, None, *(None if g is None else out.to(g.dtype) * g for g in ctx.gradients)
