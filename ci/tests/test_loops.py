"""SAGE in the loops that people have: timm's pieces, collate_fn, Lightning, Hugging Face; the loss
falls."""
import pytest
import torch
import torch.nn.functional as F
from steps import gradients, train_step
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, default_collate

from sagelib import SAGE, CutMix, Mixup
from sagelib.losses import one_hot


@pytest.fixture
def data(shapes):
    train = shapes[0]
    return TensorDataset(train.normalised(), train.labels)


def falls(losses):
    """The mean of the last quarter is well below that of the first."""
    n = len(losses) // 4
    return sum(losses[-n:]) < 0.85 * sum(losses[:n])


def small(classes=10):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(288, classes))


@pytest.mark.parametrize("learnable", [True, False])
def test_losses_fall_only_where_there_is_something_to_learn(learnable, data):
    """The same loop with the true labels, and with labels that are shuffled in every batch."""
    net, g, losses = small(), torch.Generator().manual_seed(0), []
    mix, optimizer = SAGE(num_classes=10, seed=0).bind(net), torch.optim.SGD(net.parameters(), 0.05)
    for _ in range(20):
        for x, target in DataLoader(data, 20, shuffle=True, generator=g):
            target = target if learnable else target[torch.randperm(len(target), generator=g)]
            loss = mix.loss(x, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert falls(losses) == learnable


def test_timms_own_pieces(data):
    import timm.loss
    import timm.optim
    import timm.scheduler
    import timm.utils
    net = timm.create_model("test_resnet", num_classes=10)
    mix, criterion = SAGE(num_classes=10, label_smoothing=0.1,
                          seed=0).bind(net), timm.loss.SoftTargetCrossEntropy()
    optimizer = timm.optim.create_optimizer_v2(net, "adamw", lr=5e-3)
    scaler, average, losses = timm.utils.NativeScaler(device="cpu"), timm.utils.ModelEmaV3(net), []
    for _ in range(15):
        for x, target in DataLoader(data, 20, shuffle=True,
                                    generator=torch.Generator().manual_seed(0)):
            x, y = mix(x, target)
            loss = criterion(net(x), y)
            optimizer.zero_grad()
            scaler(loss, optimizer, parameters=net.parameters(), clip_grad=1.0)
            average.update(net)
            losses.append(loss.item())
    assert falls(losses)


@pytest.mark.parametrize("mix", [
    CutMix(num_classes=10), SAGE(num_classes=10, saliency=lambda x: x.abs().mean(1)),
    Mixup(num_classes=10)], ids=["CutMix", "SAGE, maps of one's own", "Mixup"])
def test_in_a_collate_function_where_no_network_is_needed(mix, data):
    """torchvision's references mix in collate_fn; so can what needs no network."""
    x, y = next(iter(DataLoader(data, 20, collate_fn=Collate(mix))))
    assert x.shape == (20, 3, 32, 32) and y.shape == (20, 10)


def test_in_the_collate_function_of_a_worker(data):
    loader = DataLoader(data, 20, num_workers=1, collate_fn=Collate(CutMix(num_classes=10)))
    _, y = next(iter(loader))
    assert ((y > 0).sum(1) == 2).any() and torch.allclose(y.sum(1), torch.ones(20))


def test_no_worker_and_no_epoch_draws_as_another(data):
    torch.manual_seed(0)
    loader = DataLoader(data, 20, num_workers=2, collate_fn=Collate(Mixup(num_classes=10, seed=0)))
    drawn = [y.square().sum().item() for _ in range(2) for _, y in loader]
    assert len(set(drawn)) == len(drawn) == 4


class Collate:
    def __init__(self, mix):
        self.mix = mix

    def __call__(self, batch):
        return self.mix(*default_collate(batch))


@pytest.mark.parametrize("reuse", [False, True])
def test_lightnings_trainer(reuse, data, tmp_path):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.losses = small(), []
            self.mix = SAGE(num_classes=10, seed=0).bind(self.net)

        def on_after_batch_transfer(self, batch, _):
            return batch if reuse or not self.trainer.training else self.mix(*batch)

        def training_step(self, batch, _):
            loss = self.mix.loss(*batch) if reuse else F.cross_entropy(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def validation_step(self, batch, _):
            self.log("accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)

    lightning.seed_everything(0, verbose=False)
    module = Module()
    trainer = lightning.Trainer(max_epochs=20, accelerator="cpu", logger=False,
                                enable_progress_bar=False, enable_checkpointing=False,
                                enable_model_summary=False, precision="bf16-mixed",
                                default_root_dir=tmp_path,
                                accumulate_grad_batches=2 if reuse else 1)
    trainer.fit(module, DataLoader(data, 20, shuffle=True), DataLoader(data, 20))
    assert falls(module.losses) and trainer.callback_metrics["accuracy"] > 0.8


def test_lightning_does_not_lose_the_clean_gradient(data):
    """Lightning clears gradients between the training step and backward: the reuse form must carry
    its own."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = small()
            self.mix = SAGE(num_classes=10, seed=0, loss="bce").bind(self.net)

        def training_step(self, batch, _):
            return self.mix.loss(*batch)

        def on_before_optimizer_step(self, _):
            self.found = gradients(self.net)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05)

    from sagelib.methods.sage import Sage
    module, twin = Module(), small()
    lightning.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                      enable_checkpointing=False,
                      enable_model_summary=False).fit(module, DataLoader(data, 20))
    x, target = next(iter(DataLoader(data, 20)))
    train_step(Sage().seed(0), twin, x, one_hot(target, 10))
    torch.testing.assert_close(module.found, gradients(twin), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("reuse", [False, True])
def test_hugging_faces_trainer(reuse, data, tmp_path):
    import transformers

    class MixTrainer(transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if not model.training:
                return super().compute_loss(model, inputs, return_outputs)
            mix.bind(model)  # as the trainer has wrapped it
            if reuse:
                return mix.loss(inputs["pixel_values"], inputs["labels"])
            x, y = mix(inputs["pixel_values"], inputs["labels"])
            return F.cross_entropy(model(x).logits, y)

    transformers.set_seed(0)
    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1],
                                       num_labels=10, layer_type="basic")
    net = transformers.ResNetForImageClassification(config)
    mix = SAGE(num_classes=10, seed=0)
    rows = [{"pixel_values": x, "labels": int(target)} for x, target in data]
    arguments = transformers.TrainingArguments(str(tmp_path), num_train_epochs=20,
                                               per_device_train_batch_size=20, learning_rate=1e-2,
                                               logging_steps=1, save_strategy="no", report_to=[],
                                               use_cpu=True, disable_tqdm=True,
                                               gradient_accumulation_steps=2 if reuse else 1)
    trainer = MixTrainer(net, arguments, train_dataset=rows, eval_dataset=rows)
    # the loss is a mean over its batch: to be divided where they add up
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    norms = [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row]
    assert norms[0] < 2.5  # not the sum over accumulated batches
    assert falls([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert trainer.evaluate()["eval_loss"] < 1.6
