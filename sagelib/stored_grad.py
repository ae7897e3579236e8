"""The clean batch's pass: the images' gradient, and a loss that stores that of the weights.

Algorithm 1 of SAGE (https://arxiv.org/abs/2211.00113) adds the clean batch's gradient to that of
the mixed batch. The pass that gives saliency has computed it already; here the loss hands it out
when `.backward()` comes through.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .saliency import at_least_float32
from .unwrap import is_compiled, unwrapped

if TYPE_CHECKING:
    from jaxtyping import Float

LossOf = Callable[[Any], Tensor]  # the output of a network -> a loss, a scalar


def loss_with_stored_grad(
    net: nn.Module, x: Float[Tensor, "b c h w"], loss_of: LossOf,
    scaler: torch.amp.GradScaler | None = None, saliency_loss_of: LossOf | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "b c h w"]]:
    """The loss of net(x), which stores its gradient, and the gradient with respect to x.

    With `saliency_loss_of`, the gradient with respect to x is that of saliency_loss_of(net(x))
    instead: of the same forward pass, by a second backward pass.

    The gradient with respect to the weights is computed now. When a later .backward() comes through
    the loss, the weights receive it together with all else: once, as DistributedDataParallel,
    gradient scalers and trainers that clear gradients before .backward() expect. Until then it
    takes the memory of the weights once more. A hook on a weight sees the clean gradient by itself,
    and the sum. scaler: the loop's GradScaler, which scales the pass. RuntimeError where the
    network passes no gradient to the images.
    """
    scale = _scale(x, scaler)
    with torch.enable_grad():
        images, loss, saliency_loss = _losses_at(net, x, loss_of, saliency_loss_of or loss_of)
        # of the network, the loss, what they call
        weights = [leaf for leaf in leaves(loss) if leaf is not images]
        if saliency_loss is loss:
            grad, *grads = gradient(scale * loss, [images, *weights])
        else:
            grad, = gradient(scale * saliency_loss, [images], retain_graph=True)
            grads = gradient(scale * loss, weights) if weights else ()
    # others must not look used: DDP would wait for them
    used = [k for k, g in enumerate(grads) if g is not None]
    stored = _StoredGrad.apply(loss.detach(), scale, [grads[k] for k in used],
                               *(weights[k] for k in used))
    return stored, _unscaled(grad, scale)


def input_gradient(net: nn.Module, x: Float[Tensor, "b c h w"],
                   loss_of: LossOf) -> Float[Tensor, "b c h w"]:
    """Gradient of loss_of(net(x)) with respect to x, (B, C, H, W); no .grad is computed or touched.

    RuntimeError where the network passes no gradient to the images.
    """
    scale = _scale(x)
    with torch.enable_grad(), frozen_if_compiled(net):
        images, loss, _ = _losses_at(net, x, loss_of, loss_of)
        return _unscaled(gradient(scale * loss, [images])[0], scale)


def _losses_at(net, x, loss_of, saliency_loss_of):
    """The images to take gradients with respect to, and two losses of net(images), or one twice."""
    images = x.detach().requires_grad_()
    if saliency_loss_of is loss_of:
        loss = loss_of(unwrapped(net)(images.clone()))  # a network may write on what it gets
        return images, loss, loss
    _keep_buffers(net)
    out = unwrapped(net)(images.clone())
    return images, loss_of(out), saliency_loss_of(out)


def _keep_buffers(net):
    """From now on torch.compile makes graphs that can be gone back through twice.

    It is what PyTorch's own error asks for: else a backward pass writes over what it has read. What
    was compiled before is compiled again, since no guard of a graph sees this option.
    """
    config = torch._functorch.config
    if is_compiled(net) and config.donated_buffer:
        config.donated_buffer = False
        torch.compiler.reset()


@contextlib.contextmanager
def frozen_if_compiled(net: nn.Module) -> Iterator[None]:
    """A context in which the weights of a compiled network take no gradient.

    A compiled graph computes the gradients of all its inputs that take one, asked for or not.
    torch.compile makes a second graph for the frozen network, once. Eager networks stay as they
    are: autograd leaves out by itself what is not asked for.
    """
    lazy = nn.parameter.UninitializedParameter  # has nothing to freeze before its first pass
    weights = [p for p in net.parameters() if p.requires_grad and not isinstance(p, lazy)
               ] if is_compiled(net) else []
    try:
        for p in weights:
            p.requires_grad_(False)
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)


def gradient(loss: Float[Tensor, ""], inputs: Sequence[Tensor], allow_unused: bool = True,
             retain_graph: bool = False) -> tuple[Tensor | None, ...]:
    """Gradients of a scalar with respect to each of `inputs`, None where it does not depend on one.

    Without `allow_unused` an input that it does not depend on is PyTorch's error. `retain_graph`:
    for a second gradient through the same pass. A network that
    recomputes segments with use_reentrant=True has no such gradient: a RuntimeError says what to
    do.
    """
    try:
        return torch.autograd.grad(loss, inputs, allow_unused=allow_unused,
                                   retain_graph=retain_graph)
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise RuntimeError("the network recomputes a segment by torch.utils.checkpoint with "
                           "use_reentrant=True, which gives no gradient with respect to the "
                           "images alone: use_reentrant=False does") from error


def leaves(loss: Tensor) -> list[Tensor]:
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


class _StoredGrad(torch.autograd.Function):
    """A loss with its known gradient with respect to the weights, times scale."""

    @staticmethod
    def forward(ctx, loss, scale, grads, *weights):
        ctx.save_for_backward(scale, *grads)  # .backward() frees them
        return loss.clone()

    @staticmethod
    def backward(ctx, *out):
        if torch.is_grad_enabled():
            raise RuntimeError("a second derivative (create_graph=True) of this loss would lack "
                               "the clean batch's part: set reuse=0, or clean=0 for Co-Mixup")
        scale, *grads = ctx.saved_tensors
        factor = out[0] / scale
        if len({g.dtype for g in grads}) == 1 and factor.dtype == grads[0].dtype:  # in one go
            return None, None, None, *torch._foreach_mul(grads, factor)
        return None, None, None, *(factor.to(g) * g for g in grads)


def _scale(x, scaler=None):
    """What to scale the pass by, a 0-d tensor: the scaler's own scale, or a power of two.

    Unscaled, float16 would underflow, which a network may choose inside; elsewhere a power of two
    changes no digit.
    """
    if scaler is not None and getattr(scaler, "is_enabled", lambda: True)():
        return scaler.scale(torch.ones((), device=x.device))
    return torch.full((), 2.0 ** (6 + len(x).bit_length()), device=x.device)


def _unscaled(grad, scale):
    """A gradient (B, C, H, W) of scale * loss -> that of the loss, float32 or float64."""
    if grad is None:
        raise RuntimeError("the network passes no gradient to the images: take out no_grad() or "
                           "detach(), and freeze layers by requires_grad=False")
    return at_least_float32(grad) / scale
