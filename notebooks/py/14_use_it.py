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
# You have a training loop, and images of your own. This chapter puts SAGE into the loop: a plain
# one, timm's, Lightning's, Hugging Face's, on one process or several, in half precision. Then it
# trains on a folder of photos from scratch, and says what SAGE costs, when you can expect it to
# help, and where to look when it does not.
#
# One object does this for every method of the library, and it has two functions:
#
# | you write | you get | what happens to the network |
# |---|---|---|
# | `x, y = mix(x, target)` | mixed images and soft labels | nothing: SAGE runs it once for saliency and leaves it as it was |
# | `loss = mix.loss(x, target)` | the loss of one training step, a scalar | BatchNorm's running statistics move, as in any training step; gradients come when **you** call `loss.backward()` |
#
# The first replaces Mixup or CutMix in any loop. The second is the paper's step, with gradient
# reuse.
#
# In practice one thing distinguishes SAGE from Mixup and CutMix: *it needs the network*. So it
# cannot be one of the transforms of a data set. It belongs between the data loader and the forward
# pass.

# %% tags=["parameters"]
dataset = "shapes"       # or cifar10, cifar100
root = None              # where the data set is
pictures = None          # a folder of your own: PICTURES/train/CLASS/*.jpg and PICTURES/test/CLASS/*.jpg
side = 32                # pixels that photos are cut to; 128 to 224 for real ones
out = None               # a folder for the trained weights
train_images = 500
steps = 40               # of each loop
photo_epochs = 12
rounds = 5
seed = 0
results = ""             # folder of records; empty: the book's own

# %% tags=["setup"]
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import display
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, default_collate

from sagelib import SAGE, CutMix, Mixer, Mixup, catalog, datasets, methods, models, show
from sagelib.bench import records, summary, timing
from sagelib.bench.quantities import ACCURACY
from sagelib.bench.statistics import Family, difference
from sagelib.rearrange import shift
from sagelib.saliency import saliency

# %% tags=["hide-cell"]
device = "cuda" if torch.cuda.is_available() else "cpu"
folder = Path(tempfile.mkdtemp())
options = {"train": train_images} if dataset == "shapes" else {"root": root}
train, test = catalog.load(datasets, dataset, **options)
classes, data = len(train.classes), TensorDataset(train.normalised(), train.labels)
loader = DataLoader(data, 50, sampler=RandomSampler(data, True, 50 * steps))  # one epoch of so many steps
losses = {}


def network():
    torch.manual_seed(seed)
    return catalog.load(models, "preactresnet18", classes=classes, width=8).to(device).train()


def quarters(name):
    """Mean loss of a loop in its first quarter, and in its last."""
    n = max(1, len(losses[name]) // 4)
    return sum(losses[name][:n]) / n, sum(losses[name][-n:]) / n


def falls(name):
    first, last = quarters(name)
    return last < first - 0.05  # ten losses of a network that learns nothing differ by less


# %% [markdown]
# ## Two lines
#
# Build the object once and bind it to the network. Then call it on each batch, in the place of
# timm's or torchvision's Mixup. It takes class indices or soft labels, and returns images and soft
# labels. The rest of the loop stays as it is, because PyTorch's cross-entropy takes soft labels
# too.

# %%
net = network()
mix = SAGE(num_classes=classes).bind(net)  # the first line
optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
losses["plain"] = []
for x, target in loader:
    x, target = x.to(device), target.to(device)
    x, target = mix(x, target)  # the second
    loss = F.cross_entropy(net(x), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses["plain"].append(loss.item())
assert falls("plain")

# %% [markdown]
# To compute saliency the call runs the network once, forwards and backwards, in the mode that you
# have set (`net.train()` is yours to call). This extra pass has no side effects: existing
# gradients, frozen layers and BatchNorm's running statistics stay as they were. During it,
# BatchNorm normalises with the statistics of the batch and dropout is active, as in training.
#
# `mix.last` describes the batch that was just mixed: the batch permutation, the shifts, the masks,
# the shares of the labels ($\gamma$), and the saliency maps. A look at the maps tells you more than
# a loss curve: do they find the objects at all? After so few steps, not yet reliably.
#
# The cell checks that the network is unchanged, and that images and labels can be recomputed from
# `mix.last`. It also checks what a shifted partner leaves empty: the image itself shows there, not
# a black border.

# %% mystnb={"image": {"alt": "Two rows: an image and its saliency, its partner and its saliency, and the mixed image, in which both objects can be seen."}}
batch = [z.to(device) for z in next(iter(loader))]
net.zero_grad()
F.cross_entropy(net(batch[0]), batch[1]).backward()  # gradients that must survive the call
before = [z.clone() for z in (*net.state_dict().values(), *(p.grad for p in net.parameters()))]
x, y = mix(*batch)
after = [*net.state_dict().values(), *(p.grad for p in net.parameters())]
assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) and net.training
assert y.shape == (50, classes) and torch.allclose(y.sum(1), torch.ones(50, device=device))

last = mix.last
clean, mixed = test.pixels(batch[0]), test.pixels(x)
show.grid([[clean[i], last.saliency[i], clean[j], last.saliency[j], mixed[i]] for i, j in enumerate(last.pair[:2].tolist())],
          [["image", "its saliency", "partner", "its saliency", f"γ = {share:.2f}"] for share in last.share[:2]], size=1.2)
own, partner, share = F.one_hot(batch[1], classes).float(), shift(batch[0][last.pair], last.tau), last.share[:, None]
torch.testing.assert_close(x, last.mask * batch[0] + (1 - last.mask) * partner)
torch.testing.assert_close(y, share * own + (1 - share) * own[last.pair])
empty = (shift(torch.ones_like(last.mask), last.tau) == 0) & (last.saliency > 0)
assert empty.any() and (last.mask[empty] > 0.999).all()

# %% [markdown]
# ## With gradient reuse
#
# The pass that computes saliency also computes the gradient of the clean batch. Algorithm 1 does
# not discard it, but gives it a share $r$ of the step:
#
# ```{math}
# :label: eq-use-reuse
# g = r\, \nabla_\theta \ell(\theta; x, y) + (1 - r)\, \nabla_\theta \ell(\theta; \hat x, \hat y) .
# ```
#
# A call returns images and labels, so it cannot do that. Ask for the loss instead:

# %%
net = network()
mix = SAGE(num_classes=classes, reuse=0.3).bind(net)
optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
losses["with reuse"] = []
for x, target in loader:
    x, target = x.to(device), target.to(device)
    loss = mix.loss(x, target)  # both passes
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses["with reuse"].append(loss.item())
assert falls("with reuse")

# %% [markdown]
# `loss` is an ordinary scalar. You can scale it, divide it and add to it; its `.backward()` brings
# both gradients at once. A call never updates BatchNorm's running statistics. `loss` does, with
# both batches, as the authors' code does; with `bn="batch"` or `bn="eval"` it updates them with the
# mixed batch alone.
#
# ### What would break it
#
# The authors' script calls `.backward()` on the clean loss and leaves the gradient in `.grad`,
# where that of the mixed batch is added to it. In a loop of your own that works. But Lightning and
# others clear gradients *between* the training step and `.backward()`: there the clean share is
# lost, silently. DistributedDataParallel would keep it, and exchange gradients twice.
#
# The cell compares `mix.loss` with the obvious version, which computes the two gradients separately
# and adds them by {eq}`eq-use-reuse`. Then it does what the authors' script does, with a trainer
# that clears gradients.

# %%
x, target = batch
net, slow = network(), network()
mix = SAGE(num_classes=classes, reuse=0.3).bind(net)
mix.loss(x, target).backward()
clean = torch.autograd.grad(F.cross_entropy(slow(x), target), list(slow.parameters()))
mixed = torch.autograd.grad(F.cross_entropy(slow(mix.last.x), mix.last.y), list(slow.parameters()))
for p, c, m in zip(net.parameters(), clean, mixed, strict=True):
    torch.testing.assert_close(p.grad, 0.3 * c + 0.7 * m, rtol=1e-3, atol=1e-6)

naive = network()
(0.3 * F.cross_entropy(naive(x), target)).backward()  # as the authors' script: left in .grad
loss = 0.7 * F.cross_entropy(naive(mix.last.x), mix.last.y)
naive.zero_grad()  # what a trainer does here
loss.backward()
lost = [p.grad - (0.3 * c + 0.7 * m) for p, c, m in zip(naive.parameters(), clean, mixed, strict=True)]
assert sum(d.norm() for d in lost) > 0.1 * sum(c.norm() for c in clean)  # the clean share is gone

# %% [markdown]
# So `mix.loss` stores the clean gradient inside the loss, in an operation whose backward returns a
# gradient that is already known (`stored_grad.py`). Nothing is computed twice, and each weight
# receives its gradient once. The price is memory: one more copy of the gradients during the pass of
# the mixed batch.
#
# ## One object for every method
#
# A method of the library has the same two functions, with the network as an argument:
# `method.mix(x, y, net)` and `method.loss(net, x, y)`. A `Mixer` holds one method and adds what a
# loop needs: soft labels from class indices, the network inside its wrappers, `label_smoothing`,
# `prob`, `seed`, `saliency` and `enabled`. `SAGE(10)`, `CutMix(10)` and so on are functions that
# build a `Mixer`. So you can put any method of the catalogue into your loop, or one of your own. (A
# method class has the paper's loss by default, so the cell names the usual one. It leaves out the
# two that read a transformer's attention: `TransMix(10)` is bound to a network that can be called
# with `with_attention=True`, such as `vit_tiny`, and so is `Mixer(SageAttention(), 10)`.)
#
# The options of the method are on `mix.method`. Each is checked when you set it, also in the middle
# of training; a value out of range, or a name that does not exist, is an error. `mix.unbind()`
# releases the network, as before you pickle it.

# %%
for name in catalog.suited(methods, models, "preactresnet18"):
    method = catalog.load(methods, name, criterion="cross_entropy")
    mix = Mixer(method, classes).bind(network())
    mix.loss(*batch).backward()
    assert all(p.grad.isfinite().all() for p in mix.model.parameters())
    mix.unbind()

mix = SAGE(num_classes=classes, u=0.6)
mix.method.u = 0.5
for wrong in (lambda: setattr(mix.method, "u", 1.5),
              lambda: SAGE(num_classes=classes, temperature=2), lambda: mix.u):
    try:
        wrong()
    except (ValueError, TypeError, AttributeError) as error:
        print(f"{type(error).__name__}: {error}")
assert mix.method.u == 0.5

# %% [markdown]
# Manifold Mixup mixes inside the network, after one of its stages. It takes `net.stages`, or the
# modules that you name: `ManifoldMixup(10).bind(net, stages=["layer1", "layer2"])`. After a call
# the next forward pass in training mode mixes there.
#
# ## timm
#
# This loop uses timm's model, optimizer, soft cross-entropy and moving average of the weights. SAGE
# takes the place of `timm.data.Mixup`, with the same `label_smoothing` (timm's default is 0.1, ours
# 0) and `prob`. timm's `mixup_enabled` is called `enabled` here: set it to `False` for the last
# epochs, for example.
#
# In timm's `train.py`, leave `--mixup` and `--cutmix` at 0: its prefetching loader mixes before the
# network is available. Set `--smoothing 0`, so that the script's loss is the cross-entropy that
# takes soft labels, and give the smoothing to SAGE. The line `input, target = mix(input, target)`
# goes just before the forward pass.

# %%
import timm.loss
import timm.optim
import timm.utils

net = timm.create_model("test_resnet", num_classes=classes).to(device)
mix = SAGE(num_classes=classes, label_smoothing=0.1).bind(net)
criterion = timm.loss.SoftTargetCrossEntropy()
optimizer = timm.optim.create_optimizer_v2(net, "adamw", lr=5e-3)
average = timm.utils.ModelEmaV3(net)
losses["timm"] = []
for x, target in loader:
    x, y = mix(x.to(device), target.to(device))
    loss = criterion(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    average.update(net)
    losses["timm"].append(loss.item())
assert falls("timm")

# %% [markdown]
# ## One logit for two classes
#
# For a network with one logit that separates two classes, use `num_classes=1`: targets are 0 and 1,
# labels `(B, 1)` are the probability of class 1, and both `loss="cross_entropy"` and `loss="bce"`
# are binary cross-entropy of that logit.

# %%
net = timm.create_model("test_resnet", num_classes=1).to(device)
mix = SAGE(num_classes=1).bind(net)
x, y = mix(batch[0], batch[1] % 2)
assert y.shape == (50, 1) and y.min() >= 0 and y.max() <= 1
# or: mix.loss(batch[0], batch[1] % 2).backward()
F.binary_cross_entropy_with_logits(net(x), y).backward()

# %% [markdown]
# ## Lightning
#
# Return `mix.loss` from `training_step`. Without reuse, mix at the top of the same method:
# `x, y = self.mix(*batch)`.

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
# A `Trainer` computes its loss in one method; override it. Two lines are easily missed.
# `bind(model)` binds the network as the trainer has wrapped it; a network bound earlier is not
# wrapped, and the processes would exchange no gradients. And `model_accepts_loss_kwargs = False`
# says that the loss is a mean over its batch, which the trainer must divide when it accumulates
# gradients.

# %%
import transformers


class MixTrainer(transformers.Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs)
        return self.mix.bind(model).loss(inputs["pixel_values"], inputs["labels"])


transformers.set_seed(seed)
shape = dict(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=classes)
net = transformers.ResNetForImageClassification(transformers.ResNetConfig(**shape))
settings = transformers.TrainingArguments(
    str(folder), max_steps=steps, per_device_train_batch_size=50, learning_rate=1e-2, logging_steps=1,
    save_strategy="no", report_to=[], disable_tqdm=True, dataloader_pin_memory=torch.cuda.is_available())
rows = [{"pixel_values": x, "labels": int(t)} for x, t in data]
trainer = MixTrainer(net, settings, train_dataset=rows, eval_dataset=rows[:100])
trainer.mix = SAGE(num_classes=classes)
trainer.model_accepts_loss_kwargs = False  # a mean, to be divided
trainer.remove_callback(transformers.PrinterCallback)
trainer.train()
losses["Hugging Face"] = [row["loss"] for row in trainer.state.log_history if "loss" in row]
assert falls("Hugging Face") and "eval_loss" in trainer.evaluate()

# %% [markdown]
# ## torchvision's training scripts, and the data loader
#
# torchvision's classification script has a function `train_one_epoch`. SAGE adds one line, after
# the batch has moved to the device. (Leave `--mixup-alpha` and `--cutmix-alpha` at 0.)

# %%
def train_one_epoch(model, criterion, optimizer, data_loader, device, mix):
    model.train()
    for image, target in data_loader:
        image, target = image.to(device), target.to(device)
        image, target = mix(image, target)  # new
        loss = criterion(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses["torchvision"].append(loss.item())


net, losses["torchvision"] = network(), []
criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
train_one_epoch(net, criterion, optimizer, loader, device, SAGE(num_classes=classes).bind(net))
assert falls("torchvision")

# %% [markdown]
# The script's own Mixup and CutMix run in `collate_fn`, in the worker processes, where there is no
# network. Mixup and CutMix of this library can run there too. So can SAGE, with saliency that needs
# no network: a function of the images, `saliency=`. That is a different method, because it does not
# know what your network looks at. Exercise 14.1 compares the maps.

# %%
def contrast(x):
    """How far each pixel is from its image's mean colour, (B, H, W)."""
    return (x - x.mean((2, 3), keepdim=True)).square().sum(1).sqrt()


choices = CutMix(num_classes=classes), Mixup(num_classes=classes), SAGE(num_classes=classes, saliency=contrast)


def one_of_them(rows):
    return random.choice(choices)(*default_collate(rows))


for x, y in DataLoader(data, 50, collate_fn=one_of_them):  # num_workers=4 in a script, where workers can import it
    assert x.shape[1:] == data[0][0].shape and torch.allclose(y.sum(1), torch.ones(len(x)))

# %% [markdown]
# ## Half precision, accumulated gradients, compiled networks
#
# Call `mix` inside `autocast`: the network runs in half precision, the maps are computed in
# float32, and images keep their type. In float16 the gradient with respect to the images would
# underflow, so the pass is scaled; give `loss` your `GradScaler`, if you have one, and it uses that
# scale. (On a CPU this page uses bfloat16, which needs no scaler; the scaler is disabled and only
# shows where it goes.)
#
# Accumulate gradients as always. Bind a network compiled in the default mode like any other;
# `mode="reduce-overhead"` is not tested.
#
# The table below the loop has the losses of all loops so far. After so few steps they are near
# $\ln 10 = 2.30$, the loss of a guess among ten classes. Each loop has its own network and
# optimizer, and `mix.loss` includes a share of the clean batch: compare the numbers within a row
# only.

# %%
# NBVAL_IGNORE_OUTPUT
net = torch.compile(network(), backend="inductor" if device == "cuda" else "aot_eager")  # yours: torch.compile(net)
mix = SAGE(num_classes=classes).bind(net)
optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
half = torch.float16 if device == "cuda" else torch.bfloat16
scaler = torch.amp.GradScaler(device, enabled=half == torch.float16)
name = "half precision, accumulated, compiled"
losses[name] = []
for k, (x, target) in enumerate(loader):
    with torch.autocast(device, half):
        loss = mix.loss(x.to(device), target.to(device), scaler=scaler) / 2
    scaler.scale(loss).backward()
    losses[name].append(2 * loss.item())
    if k % 2 or k + 1 == len(loader):  # every second batch, and the last
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
assert falls(name)
show.table(["loop", "loss, first quarter of the steps", "last quarter"], [[name, *quarters(name)] for name in losses])

# %% [markdown]
# ## Several processes
#
# Bind the DistributedDataParallel (DDP) wrapper, not the network inside. Each process computes
# saliency with its own copy (SyncBatchNorm exchanges statistics, as in training). The gradients of
# `loss`, clean and mixed, are exchanged once, when `.backward()` runs; to accumulate gradients, put
# `no_sync()` around `loss` and its `.backward()`. Give each process its own seed, or all draw the
# same $\lambda$.
#
# Here is a complete script for `torchrun`, with two processes and two batches in each step:

# %%
(script := folder / "train.py").write_text("""
import contextlib, torch, torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from sagelib import SAGE, catalog, datasets, models

dist.init_process_group("gloo")  # on GPUs "nccl", then torch.cuda.set_device(int(os.environ["LOCAL_RANK"])),
rank = dist.get_rank()           # and net.cuda(), x.cuda(), target.cuda()
torch.manual_seed(0)
train, _ = catalog.load(datasets, "shapes", train=100)
data = TensorDataset(train.normalised(), train.labels)
sampler = DistributedSampler(data)
net = torch.nn.parallel.DistributedDataParallel(catalog.load(models, "preactresnet18", classes=10, width=4).train())
mix = SAGE(num_classes=10, seed=rank).bind(net)
optimizer = torch.optim.SGD(net.parameters(), 0.05)
for epoch in range(2):
    sampler.set_epoch(epoch)
    for k, (x, target) in enumerate(DataLoader(data, 25, sampler=sampler)):
        with contextlib.nullcontext() if k % 2 else net.no_sync():
            (mix.loss(x, target) / 2).backward()
        if k % 2:
            optimizer.step()
            optimizer.zero_grad()
weights = sum(p.double().abs().sum() for p in net.parameters())
print(f"{weights}\\n", end="", flush=True)  # one write, so that lines of two processes do not mix
dist.destroy_process_group()
""")
command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
run = subprocess.run(command, capture_output=True, text=True)
sums = [float(line) for line in run.stdout.split()]
assert run.returncode == 0 and len(sums) == 2 and sums[0] == sums[1] > 0, run.stderr  # equal weights after two steps

# %% [markdown]
# ## Your own photos, from scratch
#
# You need a folder for each class, with photos of any size: `pictures` at the top of this notebook
# names the folder above them, and `side` is the size in pixels to which they are cropped. Without
# it the hidden cell writes such a folder from the built-in images, enlarged to different sizes, as
# JPEG files.

# %% tags=["hide-cell"]
from PIL import Image

photos = Path(pictures or folder / "photos")
some = "dotted cross", "dotted disc", "striped ring", "striped square"
if pictures is None:
    for split, part in zip(("train", "test"), catalog.load(datasets, "shapes", train=600, test=250), strict=True):
        for k, (pixels, label) in enumerate(zip(part.images, part.labels, strict=True)):
            if (name := part.classes[label]) in some:
                (photos / split / name).mkdir(parents=True, exist_ok=True)
                photo = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((96 + k % 40, 72 + k % 30))
                photo.save(photos / split / name / f"{k:03}.jpg")

# %% [markdown]
# The library reads such a folder: photos are turned upright, every format becomes RGB, and hidden
# files are ignored. Crops and flips stay in the transforms, SAGE comes after the loader, and
# evaluation does not change. Three functions depend on the size of the images: the view of a photo,
# the network, and the blur and the number of shifts of SAGE.

# %%
from torchvision.models import resnet18
from torchvision.transforms import v2

from sagelib.datasets.folder import ImageFiles, read_image

as_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
crops = v2.Compose([v2.RandomResizedCrop(side, (0.7, 1)), v2.RandomHorizontalFlip(), *as_tensor])


def photo_view(side):
    return v2.Compose([v2.Resize(side), v2.CenterCrop(side), *as_tensor])


def photo_network(classes, side):
    if side > 64:
        return resnet18(num_classes=classes)  # its first layers make 224 pixels 56
    return catalog.load(models, "preactresnet18", classes=classes, width=8)


def photo_sage(classes, side):
    return SAGE(num_classes=classes, sigma=max(1.0, side / 64), fraction=0.01 if side <= 64 else 0.001)


seen = ImageFiles(photos / "train", crops)
held = ImageFiles(photos / "test", photo_view(side), seen.classes)
print({split: {name: part.targets.count(k) for k, name in enumerate(part.classes)}
       for split, part in (("train", seen), ("test", held))})
loader = DataLoader(seen, 20, shuffle=True, drop_last=True)  # in a script: num_workers=4

# %% [markdown]
# We train once without SAGE, for comparison. The saved file has all that somebody needs to classify
# a photo with the network: the weights, the names of the classes, the size.

# %%
def train_on_photos(with_sage):
    torch.manual_seed(seed)
    net = photo_network(len(seen.classes), side).to(device).train()
    mix = photo_sage(len(seen.classes), side).bind(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    for epoch in range(photo_epochs):
        mix.enabled = with_sage and epoch < photo_epochs - 2  # the last two epochs see the photos as they are
        for x, target in loader:
            optimizer.zero_grad()
            mix.loss(x.to(device), target.to(device)).backward()  # with mix.enabled False: the plain loss
            optimizer.step()
    return net.eval()


@torch.no_grad()
def answers(net):
    return torch.cat([net(x.to(device)).softmax(1).cpu() for x, _ in DataLoader(held, 50)])


plain, net = train_on_photos(False), train_on_photos(True)
sure, truth = answers(net), torch.tensor(held.targets)
right = [100 * float((z.argmax(1) == truth).float().mean()) for z in (sure, answers(plain))]
weights = Path(out or folder) / "photos.pt"
torch.save({"weights": net.state_dict(), "classes": seen.classes, "side": side}, weights)
assert pictures or min(right) > 120 / len(seen.classes)  # guessing: 100 in so many

# %% [markdown]
# Another program loads that file and classifies one photo. The figure shows its predictions for six
# photos of the test set, and its confidence.
#
# A dozen epochs on so few photos and one seed decide nothing about SAGE. The two numbers under the
# images only prove that the loop runs.

# %% mystnb={"image": {"alt": "Six test photos in two rows, each with the class that the network names, its confidence in percent, and the true class."}}
# NBVAL_IGNORE_OUTPUT
saved = torch.load(weights, weights_only=True, map_location="cpu")
again = photo_network(len(saved["classes"]), saved["side"]).eval()
again.load_state_dict(saved["weights"])
photo = photo_view(saved["side"])(Image.fromarray(read_image(held.samples[0][0])))
with torch.no_grad():
    said = again(photo[None]).softmax(1)[0]
torch.testing.assert_close(said, sure[0], rtol=0, atol=1e-3)
six = torch.linspace(0, len(held) - 1, 6).long().tolist()
rows = six[:3], six[3:]
names = {k: f"{seen.classes[sure[k].argmax()]}, {100 * sure[k].max():.0f} %\n"
            f"(is: {seen.classes[truth[k]]})" for k in six}
show.grid([[(held[k][0] * 0.25 + 0.5).clamp(0, 1) for k in row] for row in rows], size=2,
          titles=[[names[k] for k in row] for row in rows])
print("of {} test photos: {:.0f} % right with SAGE, {:.0f} % without".format(len(held), *right))

# %% [markdown]
# ## What it costs
#
# There are two answers. We count the *work* of the network, its multiplications and additions,
# which is the same on every machine. A call of SAGE adds a forward pass, and a backward pass
# without the gradient with respect to the weights. If a backward pass costs two forward passes,
# that is 5/3 of a plain step. (A compiled network computes that gradient too, and it is discarded.)
# `loss` computes it and uses it: twice a plain step, as the `assert` checks.
#
# We measure the *time* in one run, taking turns; the ratio is to the plain step of the same round.
# The time includes the search and the mixing. How much they add depends on the network and the
# machine ([chapter 13](13_cost.ipynb)): the faster the passes, the larger the share of the rest. On
# the narrow network of this page the rest is not small.
#
# In the time of one SAGE step, plain training sees about twice as many images.

# %%
# NBVAL_IGNORE_OUTPUT
net = network()
x, target = batch
forms = {"plain": lambda: F.cross_entropy(net(x), target)}
for name, method in {"Mixup": Mixup, "CutMix": CutMix, "SAGE": SAGE}.items():
    bound = method(num_classes=classes).bind(net)
    forms[f"{name}, x, y = mix(x, y)"] = lambda bound=bound: (lambda x, y: F.cross_entropy(net(x), y))(*bound(x, target))
forms["SAGE, mix.loss(x, y)"] = lambda bound=bound: bound.loss(x, target)
each = SAGE(num_classes=classes, per_image=True).bind(net)
forms["SAGE, mix.loss(x, y), per_image"] = lambda: each.loss(x, target)
steps_of = {name: lambda form=form: form().backward() for name, form in forms.items()}
counted = {name: sum(timing.operations(step)) for name, step in steps_of.items()}
work = {name: count / counted["plain"] for name, count in counted.items()}
call, loss = work["SAGE, x, y = mix(x, y)"], work["SAGE, mix.loss(x, y)"]
assert abs(call - 5 / 3) < 0.03 and abs(loss - 2) < 0.03 and work["CutMix, x, y = mix(x, y)"] == 1
seconds = timing.interleaved(steps_of, rounds)
show.table(["step, forwards and backwards", "work", "milliseconds", "time over the plain step's", "least", "greatest"],
           [[name, work[name], 1000 * timing.spread(taken)["median"], *timing.ratio(taken, seconds["plain"]).values()]
            for name, taken in seconds.items()])

# %% [markdown]
# ## When it helps
#
# The paper reports a gain in accuracy after *long* training: 300 epochs on small images. The first
# table below computes the gains from its Table 1. Over vanilla they are 1.6 to 3.1 points. Over the
# best baseline they are small, and once negative.
#
# The other tables show our own records: one for each data set, network and recipe. Do not compare
# numbers of two tables. Only the paper's recipe with three seeds or more can support or contradict
# the paper. The hidden cell makes the tables and the sentences below them.

# %% tags=["hide-cell", "records", "nbval-ignore-output"]
ROWS = {"vanilla": ("vanilla", {}), "SAGE": ("sage", {}),
        **{f"SAGE ({100 * f:g} % searched)": ("sage", {"fraction": f}) for f in (0.1, 0.5, 1.0)}}


def reading(kind, gaps, family):
    """What a table says of SAGE, in sentences: the size of the difference, whether it is decided, and what follows."""
    if "SAGE" not in gaps:
        return "SAGE and vanilla have no seed in common yet."
    gap, sign = gaps["SAGE"], family.signs["SAGE"]
    size = f"SAGE is {abs(gap.mean):.2f} points {'above' if gap.mean > 0 else 'below'} vanilla"
    seeds = f"on average over {gap.n} seeds" if gap.n > 1 else "in one seed"
    size += f" {seeds}, which {'is decided' if sign else 'decides nothing'}."
    if kind != "paper":
        return f"{size} A {kind.split(':')[0]} recipe neither supports nor contradicts the paper."
    return size + {1: " This supports the paper's gain.", -1: " This contradicts the paper's gain.", 0: ""}[sign]


def comparison(place, kind, ours):
    """The table of one data set, network and recipe, and its reading."""
    pairs = {label: difference(runs, ours.get("vanilla", []), ACCURACY) for label, runs in ours.items()}
    gaps = {label: gap for label, gap in pairs.items() if gap and label != "vanilla"}
    family = Family(f"SAGE against vanilla, {place}", gaps)
    scores = {label: summary.spread(map(ACCURACY.value, runs)) for label, runs in ours.items()}
    rows = [[label, scores.get(label, "not run"), gaps.get(label, ""), family.word(label) if label in gaps else ""]
            for label in ROWS if label in ours or label in ("vanilla", "SAGE")]
    caption = f"{place}. Recipe: {kind}. {family.rule if gaps else ''}".strip()
    header = ["", "%, mean ± standard deviation (seeds)", "minus vanilla of the same seeds", "so it is"]
    return show.table(header, rows, caption), f"- {place}, {kind}: {reading(kind, gaps, family)}"


# %% tags=["records", "nbval-ignore-output"]
gains = [[row["dataset"], row["model"], row["vanilla"], row["sage"] - row["vanilla"],
          row["sage"] - max(v for k, v in row.items() if k not in ("dataset", "model", "sage", "vanilla"))]
         for row in records.reported(1)]
assert all(1.55 < row[3] < 3.15 and row[4] < 0.35 for row in gains) and sum(row[4] < 0 for row in gains) == 1
display(show.table(["data", "network", "vanilla", "SAGE minus vanilla", "SAGE minus the best baseline"], gains,
                   "Reported, % and points"))
trained, lines = records.every(results or records.RESULTS), []
places = {(r["dataset"]["name"], r["model"]["name"]) for r in trained if r["method"]["name"] == "sage"}
for place in sorted(places):
    for kind, ours in summary.runs_by_row(trained, *place, ROWS).items():
        table, line = comparison(", ".join(place), kind, ours)
        display(table)
        lines.append(line)
show.Markdown("\n".join(lines) or "SAGE beside vanilla: not run.")

# %% [markdown]
# [Chapter 11](11_image_classification.ipynb) has all methods and [chapter 12](12_ablations.ipynb)
# all ablations.
#
# What to conclude for your own data is our judgement, not a measurement:
#
# - **Try it** if the setting is like the paper's: thousands rather than millions of images,
#   training from scratch, and many epochs after the training accuracy reaches 100 %.
# - **Do not count on a gain** from a few epochs, from short fine-tuning, or if the label is about
#   the whole scene. Shifts move the partner and cut off what leaves the frame: if position itself
#   carries meaning, they destroy it.
# - **Compare fairly**: a step costs about two, and somewhat more if the passes are fast. Give
#   vanilla twice the epochs, and try Mixup and CutMix, which need no extra pass.
#
# ## Which options to tune
#
# Change one at a time, in this order. `prob`, `enabled`, `label_smoothing` and `seed` belong to the
# `Mixer`: `mix.prob = 0.5`. The others belong to the method: `mix.method.u = 0.5`. There the loss
# is called `criterion`: `mix.method.criterion = "bce"`.
#
# | option | default | what it does | try |
# |---|---|---|---|
# | `prob`, `enabled` | 1, True | share of the batches that are mixed; False for the last epochs | 0.5; the last 5 % without |
# | `reuse` | 0.3 | share of the clean batch in `loss`; a larger share changes training less | 0.5 |
# | `u` | 0.6 | the weight of the image's own map is uniform on $(0, u)$: a low $u$ favours the partner, 1 treats both equally | 0.5, 0.7, 1 |
# | `sigma` | 1 | blur of the maps in pixels; its meaning changes with the size of the images | 3 to 7 at 224 pixels |
# | `fraction` | 0.01 | part of all shifts that is searched; on 224 x 224 images 1 % is 1,998 shifts | 0.001 on large images |
# | `loss` | "cross_entropy" | your own function (logits, soft labels), or the paper's "bce" | |
# | `label_smoothing` | 0 | of class indices, before mixing | 0.1 |
# | `per_image` | False | a $\lambda$ and shifts for each image instead of for the batch; not in the paper, and slower (table above) | if one $\lambda$ per batch seems too coarse |
# | `bn` | "train" | BatchNorm in the clean pass of `loss`: "train" updates the running statistics with both batches, "batch" and "eval" with the mixed batch alone ("eval" also normalises the clean pass with them); a call never updates them | leave it |
# | `seed` | None | own generators; use a different seed in each process. Put `mix.state_dict()` into your checkpoint and restore it with `mix.load_state_dict(...)`: a resumed run draws what it would have drawn | |
#
# The paper's setting for CIFAR-10 is `SAGE(10, loss="bce", u=0.6, reuse=0.3)`, with `mix.loss`. Its
# learning rate of 0.2 belongs to that loss.
#
# ## Symptoms and causes
#
# | symptom | cause | what to do |
# |---|---|---|
# | training accuracy is low, and below test accuracy | it is measured on mixed images | measure it on clean images: `net.eval()` and a loader without `mix` |
# | the loss does not go to zero | soft labels have entropy; zero cannot be reached | compare test accuracy |
# | worse than without, after few epochs | the paper's gains are those after 300 epochs | train longer, or raise `reuse` |
# | `mix.last.saliency` is flat or is noise | an untrained network; evaluation mode without trained statistics | look again after an epoch |
# | all shares of a batch are near 0 | there is one $\lambda$ per batch, and this one was small | normal; with `per_image=True` each image has its own |
# | many shares near 0 or 1 in every batch | flat maps, or images with borders or of one colour | look at the maps; crop the border; lower `sigma` |
# | `mix.last` is None | this batch was not mixed: `prob` is below 1, or `enabled` is False | check for None before you use it |
# | "unexpected keyword argument" | the function has no such option | `help(SAGE)` lists them |
# | "has no 'u' that can be set", "no attribute 'u'" | the option belongs to the method | `mix.method.u` |
# | "needs the network" | not bound | `.bind(model)` |
# | "must give logits" | the bound network is a backbone, or `num_classes` is not the number of its outputs | bind the classifier; `num_classes=1` for one logit |
# | "passes no gradient to the images" | a part of the network runs under `no_grad` | freeze with `requires_grad=False` |
# | "this is a DataLoader's worker" | `mix` is in `collate_fn` or in a transform, and needs the network | mix in the training loop, or give `saliency=` |
# | much slower than twice a step | many shifts on large images; DDP around a network that is not compiled | lower `fraction`; compile, then wrap |
# | float16: reuse has no effect | the clean gradient with respect to the weights underflows | give `loss` the `scaler` (Lightning: `self.trainer.precision_plugin.scaler`; Hugging Face: `self.accelerator.scaler`), or use bfloat16 |
# | "backward through the graph a second time" | `.backward()` was called twice on one loss; or weights are computed outside `forward` (`parametrize.cached()`, a hypernetwork) | call it once; `reuse=0`, or the call |
# | "a second derivative ... would lack the clean batch's part" | `create_graph=True` through `mix.loss` | `reuse=0`, or the call |
# | Lightning Fabric | `mix` uses the network inside the object that `fabric.setup` returns, in full precision | bind what `setup` returns; call under `fabric.autocast()`; `fabric.backward(mix.loss(x, y))` |
# | FSDP or DeepSpeed ZeRO-3: errors about shapes, or missing weights | each process has only a part of the weights | use DDP; SAGE does not reach the network through other wrappers |
# | "mark a variable ready only once" | a layer skipped at random, with `find_unused_parameters=True` | `reuse=0` |
# | "recomputes a segment ... with use_reentrant=True" | the old kind of activation checkpointing | `use_reentrant=False` |
# | Manifold Mixup warns that the network "has not been run since" | a call was not followed by a forward pass; or the network was compiled and run before `bind` | run the network after each call; bind before its first run |
# | "mixes inside a network in training mode" | Manifold Mixup's `loss` on a network in evaluation mode | `net.train()` |
# | targets are refused | they are booleans, integer one-hot rows, or contain -1 or -100 | class indices from 0, or soft labels as floats |
#
# ## Exercises

# %% [markdown]
# ### Exercise 14.1
#
# In the built-in images we know where the objects are. What share of its saliency does the trained
# network put on the object, what share does `contrast`, and what share would a uniform map?

# %% tags=["hide-cell"]
# NBVAL_IGNORE_OUTPUT
shapes, judged = catalog.load(datasets, "shapes", train=train_images)
net = catalog.load(models, "preactresnet18", classes=10, width=8).to(device).train()
shapes, judged = shapes.to(device), judged.to(device)
optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
for _ in range(6):
    for part in torch.randperm(len(shapes)).split(50):
        optimizer.zero_grad()
        F.cross_entropy(net(shapes[part].normalised()), shapes[part].labels).backward()
        optimizer.step()
z, masks = judged.normalised()[:100].requires_grad_(), judged.masks[:100]
grad = torch.autograd.grad(F.cross_entropy(net(z), judged.labels[:100]), z)[0]
maps = {"network": saliency(grad), "contrast": contrast(z.detach())[:, None], "uniform": torch.ones_like(grad[:, :1])}
share = {name: float(((m * masks).sum((1, 2, 3)) / m.sum((1, 2, 3))).mean()) for name, m in maps.items()}
assert share["network"] > share["uniform"] and share["contrast"] > share["uniform"]
show.table(["map", "% of it on the object"], [[name, 100 * part] for name, part in share.items()])

# %% [markdown]
# ### Exercise 14.2
#
# Can a batch of one image be mixed, and with what? What would happen to its label? Then mix a batch
# of eight images with `per_image=True` and count the different shares.

# %% tags=["hide-cell"]
net = network()
x, target = batch
alone, label = SAGE(num_classes=classes).bind(net)(x[:1], target[:1])
# with itself, shifted: the label stays one-hot
assert label[0, target[0]] == 1 and not torch.equal(alone, x[:1])
eight = SAGE(num_classes=classes, per_image=True).bind(net)
eight(x[:8], target[:8])
assert len(eight.last.share.unique()) >= 7 and len(eight.last.tau.unique(dim=0)) >= 4

# %% [markdown]
# ### Exercise 14.3
#
# You accumulate gradients over two batches of 25. Is that the same SAGE step as one batch of 50?
# What differs, and which of these differences does `per_image=True` remove?

# %% tags=["hide-cell"]
# It is not. Partners come from the same small batch, lambda and shifts are drawn twice instead of
# once, and BatchNorm sees 25 images, in both passes. With per_image=True each image has its own
# lambda and shifts in either case; the other two remain.
parts = SAGE(num_classes=classes, seed=seed).bind(net)
shares = []
for part in range(2):
    parts(x[25 * part:25 * part + 25], target[25 * part:25 * part + 25])
    assert parts.last.pair.max() < 25
    shares.append(parts.last.share)
assert not torch.equal(shares[0], shares[1])
