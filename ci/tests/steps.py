"""A training step as any loop makes it, and the gradient that it leaves."""


def train_step(method, net, x, y):
    """Add the gradient of one step by a method to the network; the loss, detached."""
    loss = method.loss(net, x, y)
    loss.backward()
    return loss.detach()


def gradients(net):
    """A copy of the gradient of each parameter, a list."""
    return [p.grad.clone() for p in net.parameters()]
