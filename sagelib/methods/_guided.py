"""Methods that look before they mix: a pass over the clean batch gives saliency, and the maps say how to mix.

Algorithm 1 of SAGE has this shape (https://arxiv.org/abs/2211.00113), and so have Puzzle Mix and Co-Mixup. Maps from
elsewhere can take the place of the pass: `mix_by`.
"""
import contextlib
from dataclasses import dataclass

from ..losses import cross_entropy
from ..saliency import saliency
from ._clean_pass import clean_pass
from ._method import Method


@dataclass(kw_only=True)
class Guided(Method):
    """`mix` is `mix_by` what `look` finds in the network; a step weighs the losses of the clean and the mixed batch."""

    def mix_by(self, x, y, s):
        """Images and labels mixed by saliency maps s (B, 1, H, W), at least 0, of any scale -> Mixed."""
        raise NotImplementedError

    def weights(self):
        """Weights of the clean and of the mixed loss in a step; a clean weight of 0 leaves no gradient of it."""
        return 0.0, 1.0

    def units(self):
        return 6 if self.weights()[0] > 0 else 5

    def clean_loss(self, logits, y):
        """The loss whose gradient by the images is the saliency."""
        return cross_entropy(logits, y)

    def passing(self, net, bn=None):
        """The network's modes during the clean pass, as a context; `bn` instead of the method's own, if it has one."""
        return contextlib.nullcontext()

    def seen(self, grad):
        """Gradient by the images (B, C, H, W) -> saliency (B, 1, H, W): Equation 1."""
        return saliency(grad)

    def look(self, net, x, y):
        """What `net` looks at in each image: saliency (B, 1, H, W); every .grad stays as it was."""
        return self.seen(self.clean_pass(net, x, y, keep=False)[1])

    def clean_pass(self, net, x, y, keep, scale=lambda loss: loss):
        """The clean loss and its gradient by the images (B, C, H, W); with `keep`, weighted, and the weights' too."""
        weight = self.weights()[0] if keep else 1.0
        with self.passing(net):
            return clean_pass(net, x, lambda z: self.clean_loss(z, y), weight, keep, scale)

    def mix(self, x, y, net):
        return self.mix_by(x, y, self.look(net, x, y))

    def backward(self, net, x, y, scale=lambda loss: loss):
        clean_weight, mixed_weight = self.weights()
        clean, grad = self.clean_pass(net, x, y, clean_weight > 0, scale)
        mixed = self.mix_by(x, y, self.seen(grad))
        loss = mixed_weight * self.criterion(net(mixed.x), mixed.y)
        scale(loss).backward()
        return loss.detach() + (clean if clean_weight else 0)
