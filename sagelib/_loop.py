"""What a training loop of one's own brings along: wrapped networks, targets of two kinds, half precision, and one
backward pass, which is to bring the gradient of two."""
import torch
import torch.nn.functional as F
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ._gradient import gradient


def local(model):
    """The network inside DistributedDataParallel, DataParallel or Lightning Fabric: a pass through it exchanges no
    gradient."""
    inner = getattr(model, "_orig_mod", model)
    wrapped = isinstance(inner, (DistributedDataParallel, DataParallel)) or type(inner).__name__ == "_FabricModule"
    return local(inner.module) if wrapped else model


def uncompiled(model):
    """`local`, and out of torch.compile: the modules that hooks stand in."""
    net = local(model)
    return getattr(net, "_orig_mod", net)


def check_network(model, prob):
    """One clear error for what cannot be looked through."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"bind takes the network, an nn.Module that is called with the images alone, not a "
                        f"{type(model).__name__}: wrap it in one")
    if any(isinstance(m, torch.jit.ScriptModule) and any("running_mean" in name for name, _ in m.named_buffers())
           for m in model.modules()):
        raise ValueError("the BatchNorm of a scripted network cannot be held still: train it as it was before "
                         "torch.jit.script, or use torch.compile")
    several = torch.distributed.is_available() and torch.distributed.is_initialized() and (
        torch.distributed.get_world_size() > 1)
    if several and 0 < prob < 1 and any(isinstance(m, torch.nn.SyncBatchNorm) for m in model.modules()):
        raise ValueError(f"prob is {prob}: each process would decide for itself, and SyncBatchNorm would wait for "
                         "those that do not mix; it must be 0 or 1")


def check_loss(loss, classes):
    """One clear error for a loss that is no function, or that says nothing about one logit."""
    if isinstance(loss, type):
        raise ValueError(f"loss is the class {loss.__name__}; give an instance: {loss.__name__}()")
    if classes == 1 and (loss is F.cross_entropy or isinstance(loss, torch.nn.CrossEntropyLoss)):
        raise ValueError("cross-entropy over one logit is always 0; for num_classes=1 give loss='cross_entropy' or "
                         "BCEWithLogitsLoss(), or use two logits: num_classes=2")


def logits_of(out, classes):
    """Logits (B, classes) of what a network gave: a tensor, the first of several, or something that has logits."""
    out = out["logits"] if isinstance(out, dict) and "logits" in out else getattr(out, "logits", out)
    out = out[0] if isinstance(out, (tuple, list)) else out
    if not isinstance(out, torch.Tensor):
        keys = f" with {', '.join(map(repr, out))}" if isinstance(out, dict) else ""
        raise ValueError(f"the network gives a {type(out).__name__}{keys}; it must give logits, or something that has "
                         "logits: bind a wrapper that does")
    if out.ndim != 2 or out.shape[1] != classes:
        hint = "; one logit for two classes is num_classes=1" if out.ndim == 2 and out.shape[1] == 1 else ""
        raise ValueError(f"the network gives {tuple(out.shape)}; with num_classes={classes} it must give logits "
                         f"(B, {classes}){hint}")
    return out


def loader_worker():
    """The DataLoader's worker that this process is, with a seed of its own in each epoch, or None; none compiles."""
    return None if torch.compiler.is_compiling() else torch.utils.data.get_worker_info()


def readable(z):
    """Whether the host can check values: not on another device, which it would wait for, nor in a compiled step."""
    return z.is_cpu and not torch.compiler.is_compiling()


def soft_labels(x, target, classes, smoothing=0.0):
    """Images x (B, C, H, W), detached, and labels (B, classes), float32, from class indices (B,) or soft targets
    (B, classes); with one class, the probability of class 1, from 0 and 1 or what lies between, (B,) or (B, 1)."""
    for name, z in (("images", x), ("targets", target)):
        if not isinstance(z, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, not a {type(z).__name__}")
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        raise RuntimeError("this is torch.inference_mode, where nothing can be trained: mix in the training loop")
    if x.ndim != 4 or not x.is_floating_point() or len(x) == 0:
        raise ValueError(f"images must be normalised floats (B, C, H, W), not {x.dtype} {tuple(x.shape)}")
    if target.device != x.device:
        raise ValueError(f"images are on {x.device}, targets on {target.device}: move the batch to one device first")
    if classes == 1:
        return x.detach(), _probability(target, len(x), smoothing)
    whole = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    if target.shape == (len(x),) and whole:
        target = target.long()
        if readable(target) and not 0 <= int(target.min()) <= int(target.max()) < classes:
            raise ValueError(f"class indices must be from 0 to {classes - 1}, not {int(target.min())} to "
                             f"{int(target.max())}")
        return x.detach(), F.one_hot(target, classes).float() * (1 - smoothing) + smoothing / classes
    if target.shape != (len(x), classes) or not target.is_floating_point():
        raise ValueError(f"targets must be class indices ({len(x)},) or soft labels ({len(x)}, {classes}), floats; "
                         f"they are {target.dtype} {tuple(target.shape)}")
    return x.detach(), target.detach().float()


def _probability(target, n, smoothing):
    """Labels (n, 1), float32, of the two classes 0 and 1 that a network with one logit tells apart."""
    if target.shape not in {(n,), (n, 1)} or target.is_complex():
        raise ValueError("num_classes=1 is one logit for two classes: targets must be 0 and 1, "
                         f"({n},) or ({n}, 1), not {target.dtype} {tuple(target.shape)}")
    y = target.detach().float().reshape(n, 1)
    if readable(y) and not ((y >= 0) & (y <= 1)).all():
        raise ValueError(f"num_classes=1 is one logit for two classes: targets must be from 0 to 1, not {y.min():g} to "
                         f"{y.max():g}; for class indices num_classes is the number of the network's logits")
    return y if target.is_floating_point() else y * (1 - smoothing) + smoothing / 2


def carried(net, x, loss_of, scale=None):
    """loss_of(net(x)) and its gradient by x (B, C, H, W); the weights' gradient is computed now and kept in the loss.

    When a later .backward() comes through the loss, the weights receive it together with all else: once, as
    DistributedDataParallel, gradient scalers and trainers that clear gradients before .backward() expect. `scale`, a
    0-d tensor, is a GradScaler's: the pass is scaled by it, the weights' gradient is scaled back. A hook on a weight
    sees the clean gradient by itself, and the sum.
    """
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = loss_of(net(z.clone()))  # a network may write on what it is given
        weights = [leaf for leaf in leaves(loss) if leaf is not z]  # of the network, of the loss, of what they call
        scale = torch.ones_like(loss) if scale is None else scale
        grad, *gradients = gradient(scale * loss, [z, *weights])
    used = [k for k, g in enumerate(gradients) if g is not None]  # others must not look used: DDP would wait for them
    return _Carry.apply(loss.detach(), scale, [gradients[k] for k in used], *(weights[k] for k in used)), grad


def leaves(loss):
    """The tensors that a loss was computed from and that collect a gradient, each once."""
    seen, todo, found = set(), [loss.grad_fn], []
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        todo += [before for before, _ in node.next_functions]
    return found


class _Carry(torch.autograd.Function):
    """A loss that is known, with its gradient by the weights, times scale: nothing is computed again."""

    @staticmethod
    def forward(ctx, loss, scale, gradients, *weights):
        ctx.save_for_backward(scale, *gradients)  # .backward() frees them
        return loss.clone()

    @staticmethod
    def backward(ctx, out):
        if torch.is_grad_enabled():
            raise RuntimeError("a second derivative (create_graph=True) of mix.loss would lack the clean batch's part: "
                               "set reuse=0, or clean=0 for Co-Mixup")
        scale, *gradients = ctx.saved_tensors
        return None, None, None, *((out / scale).to(g) * g for g in gradients)
