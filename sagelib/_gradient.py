"""The gradient with respect to given tensors alone, which leaves every .grad as it is."""
import torch


def gradient(loss, inputs, allow_unused=True):
    """Gradients of a scalar with respect to each of `inputs`, None where it does not depend on one
    (without `allow_unused` that is PyTorch's error).

    A network that recomputes segments with use_reentrant=True has no such gradient: a RuntimeError says what to do.
    """
    try:
        return torch.autograd.grad(loss, inputs, allow_unused=allow_unused)
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise RuntimeError("the network recomputes a segment by torch.utils.checkpoint with use_reentrant=True, which "
                           "gives no gradient with respect to the images alone: use_reentrant=False does") from error
