# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb
#     notebook_metadata_filter: kernelspec,jupytext
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Use it
#
# You have a training loop, and images of your own. This chapter puts SAGE into the loop: a plain one, timm's, Lightning's,
# Hugging Face's, on one process or several, in half precision. Then it trains on a folder of photos from nothing, and says
# what SAGE costs, when it can be expected to help, and where to look when it does not.
#
# One thing sets SAGE apart from Mixup and CutMix in practice: *it needs the network*. It cannot sit among the transforms of a
# data set. It stands between the data loader and the forward pass.

# %% tags=["parameters"]
dataset = "shapes"       # or cifar10, cifar100
root = None              # where the data set is
pictures = None          # a folder of your own: PICTURES/train/CLASS/*.jpg and PICTURES/test/CLASS/*.jpg
train_images = 500
steps = 40               # of each loop
photo_epochs = 12
rounds = 5
seed = 0

# %%
import random
import subprocess
import sys
import tempfile
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, default_collate

from sagelib import SAGE, CutMix, Mixup, catalog, datasets, models, records, show, timing
from sagelib.saliency import saliency

folder = Path(tempfile.mkdtemp())
options = {"train": train_images} if dataset == "shapes" else {"root": root}
train, test = catalog.load(datasets, dataset, **options)
classes, data = len(train.classes), TensorDataset(train.normalised(), train.labels)
loader = DataLoader(data, 50, sampler=RandomSampler(data, True, 50 * steps))  # one epoch of so many steps


# %%
def network():
    torch.manual_seed(seed)
    return catalog.load(models, "preactresnet18", classes=classes, width=8).train()


losses = {}


def falls(name):
    """Whether the loss of a loop fell: its last quarter against its first."""
    n = max(1, len(losses[name]) // 4)
    return sum(losses[name][-n:]) < sum(losses[name][:n])


# %% [markdown]
# ## Two lines
#
# Make the method once, and bind it to the network. Then call it on each batch, where timm's or torchvision's Mixup would
# stand. It takes class numbers or soft labels, and returns images and soft labels. The rest of the loop stays as it is, since
# PyTorch's cross-entropy takes soft labels too.

# %%
net = network()
mix = SAGE(num_classes=classes).bind(net)  # the first line
optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
losses["plain"] = []
for x, target in loader:
    x, target = mix(x, target)  # the second
    loss = F.cross_entropy(net(x), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses["plain"].append(loss.item())
assert falls("plain")

# %% [markdown]
# To find saliency the call runs the network once by itself, forwards and backwards. It leaves everything as it was: gradients
# that wait in the weights, frozen layers, training or evaluation mode, and the running statistics of BatchNorm. The pass sees
# the statistics of the batch, as in training, and updates none.

# %%
batch = next(iter(loader))
net.zero_grad()
F.cross_entropy(net(batch[0]), batch[1]).backward()  # something that waits in the weights
before = [z.clone() for z in (*net.state_dict().values(), *(p.grad for p in net.parameters()))]
x, y = mix(*batch)
after = [*net.state_dict().values(), *(p.grad for p in net.parameters())]
assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) and net.training
assert y.shape == (50, classes) and torch.allclose(y.sum(1), torch.ones(50))

# %% [markdown]
# What was done is in `mix.last`: the pairing, each shift, the mask, the share of the label, and the saliency. A glance at it
# after a few hundred steps tells more than a loss curve: do the maps find the objects at all?

# %% mystnb={"image": {"alt": "Three rows: an image and its saliency, its partner and its saliency, and the mixed image, in which both objects can be seen."}}
last = mix.last
clean, mixed = test.pixels(batch[0]), test.pixels(x)
show.grid([[clean[i], last.saliency[i], clean[j], last.saliency[j], mixed[i]] for i, j in enumerate(last.pair[:3].tolist())],
          [["image", "its saliency", "partner", "its saliency", f"γ = {share:.2f}"] for share in last.share[:3]], size=1.2)
assert torch.allclose(last.mask.mean((1, 2, 3)), last.share)

# %% [markdown]
# ## With gradient reuse
#
# The pass that finds saliency has the gradient of the clean batch at hand. Algorithm 1 does not throw it away, but makes it a
# share $r$ of the step:
#
# ```{math}
# :label: eq-use-reuse
# g = r\, \nabla_\theta \ell(\theta; x, y) + (1 - r)\, \nabla_\theta \ell(\theta; \hat x, \hat y) .
# ```
#
# A call cannot do that, because it must not touch gradients. Whoever owns the loop asks for the loss instead:

# %%
net = network()
mix, optimizer = SAGE(num_classes=classes, reuse=0.3).bind(net), torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
losses["with reuse"] = []
for x, target in loader:
    loss = mix.loss(x, target)  # both passes
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses["with reuse"].append(loss.item())
assert falls("with reuse")

# %% [markdown]
# `loss` is an ordinary scalar. It can be scaled, divided and added to; its `.backward()` brings both gradients at once. The
# obvious version, for comparison: both gradients by themselves, then {eq}`eq-use-reuse`.

# %%
x, target = batch
one, two = network(), network()
mix = SAGE(num_classes=classes, reuse=0.3).bind(one)
mix.loss(x, target).backward()
clean = torch.autograd.grad(F.cross_entropy(two(x), target), list(two.parameters()))
mixed = torch.autograd.grad(F.cross_entropy(two(mix.last.x), mix.last.y), list(two.parameters()))
for p, c, m in zip(one.parameters(), clean, mixed, strict=True):
    torch.testing.assert_close(p.grad, 0.3 * c + 0.7 * m, rtol=1e-3, atol=1e-6)

# %% [markdown]
# ### What would break it
#
# The authors' script calls `.backward()` on the clean loss and lets the gradient wait in `.grad` until that of the mixed batch
# is added. In one's own loop that works. In a trainer it fails without a word: Lightning clears gradients *between* the
# training step and `.backward()`, and DistributedDataParallel would exchange gradients twice.

# %%
naive = network()
(0.3 * F.cross_entropy(naive(x), target)).backward()  # waits in .grad
loss = 0.7 * F.cross_entropy(naive(mix.last.x), mix.last.y)
naive.zero_grad()  # what a trainer does here
loss.backward()
lost = [p.grad - (0.3 * c + 0.7 * m) for p, c, m in zip(naive.parameters(), clean, mixed, strict=True)]
assert sum(d.norm() for d in lost) > 0.1 * sum(c.norm() for c in clean)  # the clean share is gone

# %% [markdown]
# So `loss` keeps the clean gradient inside the loss: an operation whose backward hands out a gradient that is already known.
# Nothing is computed twice, and each weight receives its gradient once.
#
# ## timm
#
# timm's own pieces: model, optimizer, soft cross-entropy, moving average of the weights. SAGE stands where
# `timm.data.Mixup` would; it has the same `label_smoothing`, `prob`, and an `enabled` to set to `False` for the last epochs.

# %%
import timm.loss
import timm.optim
import timm.utils

net = timm.create_model("test_resnet", num_classes=classes)
mix, criterion = SAGE(num_classes=classes, label_smoothing=0.1).bind(net), timm.loss.SoftTargetCrossEntropy()
optimizer, average = timm.optim.create_optimizer_v2(net, "adamw", lr=5e-3), timm.utils.ModelEmaV3(net)
losses["timm"] = []
for x, target in loader:
    x, y = mix(x, target)
    loss = criterion(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    average.update(net)
    losses["timm"].append(loss.item())
assert falls("timm")

# %% [markdown]
# ## Lightning
#
# Return `mix.loss` from `training_step`. Without reuse, `on_after_batch_transfer` is the place of the call:
# `return self.mix(*batch) if self.trainer.training else batch`.

# %%
import logging
import warnings

import lightning

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()
        self.mix = SAGE(num_classes=classes).bind(self.net)

    def training_step(self, batch, index):
        loss = self.mix.loss(*batch)
        losses.setdefault("Lightning", []).append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), 0.05, momentum=0.9)


quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
lightning.Trainer(max_epochs=1, precision="bf16-mixed", default_root_dir=folder, **quiet).fit(Classifier(), loader)
assert falls("Lightning")

# %% [markdown]
# ## Hugging Face
#
# A `Trainer` computes its loss in one method; override that. A network that returns an object with `.logits` is understood.

# %%
import transformers


class MixTrainer(transformers.Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs)
        return self.mix.loss(inputs["pixel_values"], inputs["labels"])


transformers.logging.set_verbosity_error()
shape = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=classes)
torch.manual_seed(seed)
net = transformers.ResNetForImageClassification(shape)
settings = transformers.TrainingArguments(
    str(folder), max_steps=steps, per_device_train_batch_size=50, learning_rate=1e-2, logging_steps=1, logging_strategy="steps",
    save_strategy="no", report_to=[], disable_tqdm=True)
trainer = MixTrainer(net, settings, train_dataset=[{"pixel_values": x, "labels": int(t)} for x, t in data])
trainer.mix = SAGE(num_classes=classes).bind(net)
trainer.log = lambda logs, *_: losses.setdefault("Hugging Face", []).append(logs["loss"]) if "loss" in logs else None
trainer.train()
assert falls("Hugging Face")

# %% [markdown]
# ## In the data loader, as in torchvision's examples
#
# torchvision's examples mix in `collate_fn`, in the worker processes, where there is no network. Mixup and CutMix of this
# library can stand there. So can SAGE, with saliency that needs no network: a function of the images, `saliency=`. That is
# another method, since it does not know what your network looks at. Exercise 14.1 compares the two.

# %%
def contrast(x):
    """How far each pixel is from its image's mean colour, (B, H, W)."""
    return (x - x.mean((2, 3), keepdim=True)).square().sum(1).sqrt()


choices = CutMix(num_classes=classes), Mixup(num_classes=classes), SAGE(num_classes=classes, saliency=contrast)
workers = DataLoader(data, 50, collate_fn=lambda rows: random.choice(choices)(*default_collate(rows)))
for x, y in workers:
    assert x.shape[1:] == data[0][0].shape and torch.allclose(y.sum(1), torch.ones(len(x)))

# %% [markdown]
# ## Half precision, accumulated gradients, compiled networks
#
# Call `mix` inside `autocast`: the pass over the network runs in half precision, the maps are computed in float32, and
# images come back in the type they came in. In float16 the gradient by the pixels is so small that much of it would be
# rounded to zero; a call scales it. With reuse, give `loss` your `GradScaler`. (Processors are slow in float16, so that this
# page runs in bfloat16, which needs no scaler and bears one.)
#
# Gradients are accumulated as ever, and a compiled network is bound like any other:

# %%
net = torch.compile(network(), backend="aot_eager")  # on a GPU: torch.compile(net)
mix, optimizer = SAGE(num_classes=classes).bind(net), torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
scaler = torch.amp.GradScaler("cpu")
losses["compiled"] = []
for k, (x, target) in enumerate(loader):
    with torch.autocast("cpu", torch.bfloat16):
        loss = mix.loss(x, target, scaler=scaler) / 2
    scaler.scale(loss).backward()
    losses["compiled"].append(2 * loss.item())
    if k % 2:  # every second batch
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
assert falls("compiled")

# %% [markdown]
# ## Several processes
#
# Bind the wrapped network. Saliency is each process's own business and looks through the network inside; the gradients of
# `loss`, clean and mixed, are exchanged once, when `.backward()` runs. A complete script, run by `torchrun` on two processes:

# %%
script = folder / "train.py"
script.write_text(f'''
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from sagelib import SAGE, catalog, datasets, models

dist.init_process_group("gloo")  # "nccl" on GPUs
rank = dist.get_rank()
torch.manual_seed({seed})
net = DistributedDataParallel(catalog.load(models, "preactresnet18", classes=10, width=4))
mix = SAGE(num_classes=10, seed=rank).bind(net)  # each process draws for itself
train, _ = catalog.load(datasets, "shapes", train=100)
mine = train[rank::2]  # DistributedSampler in a longer script
mix.loss(mine.normalised(), mine.labels).backward()
print(sum(p.grad.double().abs().sum() for p in net.parameters()).item())
dist.destroy_process_group()
''')
run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)],
                     capture_output=True, text=True)
sums = [float(line) for line in run.stdout.split()]
assert run.returncode == 0 and len(sums) == 2 and sums[0] == sums[1] > 0, run.stderr

# %% [markdown]
# ## Your own photos, from nothing
#
# A folder for each class, photos of any size: `pictures` at the top of this notebook names it. Without one we write such a
# folder, from the built-in images, enlarged to sizes that differ, as JPEG files.

# %%
from PIL import Image

photos = Path(pictures or folder / "photos")
if pictures is None:
    some = "dotted cross", "dotted disc", "striped ring", "striped square"
    for split, part in zip(("train", "test"), catalog.load(datasets, "shapes", train=600, test=250), strict=True):
        for k, (pixels, label) in enumerate(zip(part.images, part.labels, strict=True)):
            if (name := part.classes[label]) in some:
                (photos / split / name).mkdir(parents=True, exist_ok=True)
                photo = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((96 + k % 40, 72 + k % 30))
                photo.save(photos / split / name / f"{k:03}.jpg")
print({split: {p.name: len(list(p.iterdir())) for p in sorted((photos / split).iterdir())} for split in ("train", "test")})

# %% [markdown]
# torchvision reads such a folder. Crops and flips stay in the transforms, SAGE comes after the loader, and evaluation knows
# nothing of it. The weights are written at the end.

# %%
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

as_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
seen = ImageFolder(photos / "train", v2.Compose([v2.RandomResizedCrop(32, (0.7, 1)), v2.RandomHorizontalFlip(), *as_tensor]))
held = ImageFolder(photos / "test", v2.Compose([v2.Resize((32, 32)), *as_tensor]))
torch.manual_seed(seed)
net = catalog.load(models, "preactresnet18", classes=len(seen.classes), width=8)  # or any network of torchvision's or timm's
mix, optimizer = SAGE(num_classes=len(seen.classes)).bind(net), torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
for epoch in range(photo_epochs):
    net.train()
    mix.enabled = epoch < photo_epochs - 2  # the last two epochs see the photos as they are
    for x, target in DataLoader(seen, 20, shuffle=True):
        optimizer.zero_grad()
        mix.loss(x, target).backward()
        optimizer.step()
net.eval()
with torch.no_grad():
    found = [(net(x).softmax(1), target) for x, target in DataLoader(held, 50)]
torch.save(net.state_dict(), folder / "weights.pt")
sure, target = (torch.cat(z) for z in zip(*found, strict=True))
right = (sure.argmax(1) == target).float().mean().item()
assert right > 1.2 / len(seen.classes)  # guessing is right for one in so many

# %% [markdown]
# What it says of a few photos it has not seen, with its confidence. After so short a training on so few of them some answers
# are wrong.

# %% mystnb={"image": {"alt": "Six test photos in a row, each with the class that the network names and its confidence in percent."}}
# NBVAL_IGNORE_OUTPUT
some = torch.linspace(0, len(held) - 1, 6).long().tolist()
show.grid([[(held[k][0] * 0.25 + 0.5).clamp(0, 1) for k in some]], size=1.4,
          titles=[f"{seen.classes[sure[k].argmax()]}, {100 * sure[k].max():.0f} %" for k in some])
print(f"{100 * right:.0f} % of {len(held)} test photos are named right")

# %% [markdown]
# ## What it costs
#
# A plain step, a step with each kind of mixing, all in one run and in turn; the ratio is to the plain step of the same round.
# A call of SAGE is one more forward pass, and a backward pass that stops at the pixels and leaves the weights alone; `loss` goes
# all the way. The search and the mixing are small beside them. Batches twice as large at the same time a step is what you give
# up.

# %%
# NBVAL_IGNORE_OUTPUT
net = network()
x, target = batch
forms = {"plain": lambda: F.cross_entropy(net(x), target)}
for name, method in {"Mixup": Mixup, "CutMix": CutMix, "SAGE": SAGE}.items():
    bound = method(num_classes=classes).bind(net)
    forms[f"{name}, x, y = mix(x, y)"] = lambda bound=bound: (lambda x, y: F.cross_entropy(net(x), y))(*bound(x, target))
forms["SAGE, mix.loss(x, y)"] = lambda bound=bound: bound.loss(x, target)
seconds = timing.interleaved({name: lambda form=form: form().backward() for name, form in forms.items()}, rounds)
ratios = {name: timing.ratio(taken, seconds["plain"]) for name, taken in seconds.items()}
assert 1.3 < ratios["SAGE, x, y = mix(x, y)"]["median"] < 2.4 and ratios["SAGE, mix.loss(x, y)"]["median"] < 3
show.table(["step, forwards and backwards", "milliseconds", "times the plain step", "least", "greatest"],
           [[name, 1000 * timing.spread(taken)["median"], *ratios[name].values()] for name, taken in seconds.items()])

# %% [markdown]
# ## When it helps
#
# What the paper reports is a gain in accuracy after *long* training: 300 epochs of small images, networks that know the
# training set by heart without it. The table reads these gains off its Table 1.

# %%
gains = [[row["dataset"], row["model"], row["vanilla"], row["sage"] - row["vanilla"],
          row["sage"] - max(v for k, v in row.items() if k not in ("dataset", "model", "sage", "vanilla"))]
         for row in records.reported(1)]
assert all(row[3] > 1.5 for row in gains) and min(row[4] for row in gains) < 0 < max(row[4] for row in gains)
show.table(["data", "network", "vanilla", "SAGE minus vanilla", "SAGE minus the best rival"], gains, "Reported, % and points")

# %% [markdown]
# In our own records, of recipes a tenth as long on a fifth of the images, SAGE has *not* caught up with vanilla
# ([chapter 11](11_image_classification.ipynb)). That is no contradiction: a strong augmentation slows learning first and pays off
# where a network would overfit. It is a warning all the same.
#
# - **Expect a gain** when the training accuracy reaches 100 % long before training ends, with thousands rather than millions of
#   images, trained from nothing, each with one object.
# - **Do not expect one** from a few epochs, from fine-tuning that never overfits, from images where the label is about the whole
#   scene, or where the colour of a corner decides. Shifts bring black (mean-coloured) strips: where position carries meaning, as
#   in medical images in a fixed pose, they destroy it.
# - **Compare fairly**: a step costs about two. Give vanilla twice the epochs, and Mixup and CutMix a run too; they are free.
#
# ## What to turn first
#
# | option | what it does | try |
# |---|---|---|
# | `u` | bound of $\lambda$: low keeps the partner in view, 1 treats both alike; the paper tuned it, 0.5 to 0.7 | 0.5, 0.7 |
# | `reuse` | share of the clean batch in `loss`; more of it is milder | 0.3, 0.5 |
# | `prob`, `enabled` | share of the batches that are mixed; the last epochs without | 0.5; the last 5 % |
# | `per_image` | a $\lambda$ and shifts for each image instead of for the batch; not in the paper | `True` for small batches |
# | `fraction` | part of all shifts that is searched; on 224 x 224 images 1 % is 1,998 shifts | 0.01; 0.001 on large images |
# | `sigma` | blur of the maps, in pixels; its meaning changes with the size of the images | 1 at 32 pixels, 3 to 7 at 224 |
# | `loss` | `"cross_entropy"`, your own function, or the paper's `"bce"`, whose learning rate of 0.2 goes with it alone | |
# | `bn` | BatchNorm in the clean pass: `"batch"`, `"train"` or `"eval"` | leave it |
#
# ## Symptoms and causes
#
# | symptom | cause | what to do |
# |---|---|---|
# | training accuracy is low, and below test accuracy | it is measured on mixed images | measure it on clean ones |
# | the loss does not go to zero | soft labels have entropy; zero cannot be reached | compare test accuracy |
# | worse than without, after few epochs | see above: the gain comes late | train longer, or raise `reuse` |
# | `mix.last.saliency` is flat or is noise | an untrained network; a network in evaluation mode without trained statistics | look again after an epoch |
# | all shares are near 0 or 1 | one map of the pair dominates: images with a border, or all of one colour | crop the border; raise `sigma` |
# | "needs the network" | not bound | `.bind(model)` |
# | "must give logits" | the bound network is a backbone, or `num_classes` is not its own | bind the classifier |
# | much slower than twice a step | the clean pass runs uncompiled inside DistributedDataParallel; many shifts on large images | compile the inner network; lower `fraction` |
# | NaN in float16 | a loss that is not yours to scale | give `loss` the `scaler`, or use bfloat16 |
# | Manifold Mixup warns that nothing was run | the network was compiled and run before `bind` | bind first |
# | an error about recomputation | old-style activation checkpointing cannot be differentiated by inputs | `use_reentrant=False` |
#
# ## Exercises

# %% [markdown]
# ### Exercise 14.1
#
# On the built-in images the objects are known. How much of its map does the trained network put on the object, how much does
# `contrast`, and how much would a uniform map?

# %% tags=["hide-cell"]
shapes = catalog.load(datasets, "shapes", train=train_images)
net, x, y = network(), shapes[0].normalised(), shapes[0].labels
optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
for _ in range(6):
    for part in torch.randperm(len(x)).split(50):
        optimizer.zero_grad()
        F.cross_entropy(net(x[part]), y[part] % classes).backward()
        optimizer.step()
z = shapes[1].normalised()[:100].requires_grad_()
seen_by_net = saliency(torch.autograd.grad(F.cross_entropy(net(z), shapes[1].labels[:100] % classes), z)[0])
masks = shapes[1].masks[:100]
share = {name: float(((m * masks).sum((1, 2, 3)) / m.sum((1, 2, 3))).mean())
         for name, m in (("network", seen_by_net), ("contrast", contrast(z.detach())[:, None]), ("uniform", torch.ones_like(seen_by_net)))}
assert share["network"] > share["uniform"] and share["contrast"] > share["uniform"]

# %% [markdown]
# ### Exercise 14.2
#
# Show that a batch of one image can be mixed, and with what. Then mix single images with `per_image=True` in a batch of eight
# and count how many different shares there are.

# %% tags=["hide-cell"]
x, target = batch
alone, label = SAGE(num_classes=classes).bind(net)(x[:1], target[:1])
assert label[0, target[0]] == 1 and not torch.equal(alone, x[:1])  # with itself, shifted: the label stays pure
eight = SAGE(num_classes=classes, per_image=True).bind(net)
eight(x[:8], target[:8])
assert len(eight.last.share.unique()) >= 7 and len(eight.last.tau.unique(dim=0)) >= 4

# %% [markdown]
# ### Exercise 14.3
#
# You accumulate gradients over four batches of 25. Is that the same SAGE step as one batch of 100? What differs, and for which
# option does it not?

# %% tags=["hide-cell"]
# Partners come from the same small batch, and each has its own lambda and shifts: four draws instead of one. Without pairs
# across batches nothing is the same; with per_image=True at least lambda and shifts are drawn alike for both.
parts = SAGE(num_classes=classes, seed=seed).bind(net)
shares = []
for part in range(2):
    parts(x[25 * part:25 * part + 25], target[25 * part:25 * part + 25])
    assert parts.last.pair.max() < 25
    shares.append(parts.last.share)
assert not torch.equal(shares[0], shares[1])
