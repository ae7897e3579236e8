"""A training step as any loop makes it."""


def train_step(method, net, x, y):
    """Add the gradient of one step by a method to the network; the loss, detached."""
    loss = method.loss(net, x, y)
    loss.backward()
    return loss.detach()
