"""A training step as any loop makes it, and the gradient that it leaves."""


def train_step(method, net, x, y):
    """Add the gradient of one step by a method to the network; the loss, detached."""
    loss = method.loss(net, x, y)
    loss.backward()
    return loss.detach()


def gradients(net):
    """A copy of the gradient of each parameter, a list."""
    return [p.grad.clone() for p in net.parameters()]


def pytorch_loop(net, method, batches, optimizer, recipe):
    """The recipe's epochs as a loop of PyTorch's own has them, a learning rate for each step."""
    for epoch in range(recipe.epochs):
        for step, (x, y) in enumerate(batches):
            optimizer.param_groups[0]["lr"] = recipe.rate(epoch, step, len(batches))
            optimizer.zero_grad()
            method.loss(net, x, y).backward()
            optimizer.step()
