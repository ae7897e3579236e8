"""The pass over the clean batch that saliency comes from: gradient by the images, and as much for the weights as is
asked.

In SAGE and Co-Mixup a share of that gradient stays in the weights, in Puzzle Mix none; no difference otherwise.
"""
import torch

from .._gradient import gradient
from .._modes import evaluation_mode
from ..saliency import at_least_float32


def clean_pass(net, x, loss_of, weight=1.0, keep=True, scale=lambda loss: loss):
    """weight * loss_of(net(x)) and its gradient by x (B, C, H, W): (loss, gradient), both detached.

    keep=True adds the gradient by the weights to their .grad; keep=False neither computes nor touches it. `scale` is
    a GradScaler's; the gradient by the images comes back scaled.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = weight * loss_of(net(x.clone()))  # a network may write on what it is given
        if keep:
            scale(loss).backward()
            return loss.detach(), x.grad
        return loss.detach(), gradient(scale(loss), [x])[0]


def unscaled(grad, scale):
    """A gradient (B, C, H, W) of scale * loss -> that of the loss, float32 or float64."""
    return at_least_float32(grad) / scale


def image_gradient(net, x, loss_of):
    """Gradient of loss_of(net(x)) by x, (B, C, H, W), in evaluation mode; the network is left as it was."""
    with evaluation_mode(net):
        return clean_pass(net, x, loss_of, keep=False)[1]
