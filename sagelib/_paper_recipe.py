"""The recipe of the paper's tables (appendix B and the authors' code), and how another differs from it, in words."""

PAPER = dict(epochs=300, lr=0.2, momentum=0.9, nesterov=True, weight_decay=1e-4, decay=0.1, batch=100, padding=2,
             flip=True, loss="bce", train_images=50_000)
LR = {("cifar10", "comixup"): 0.12}  # with 0.2 the paper saw it diverge
WIDTH = {"preactresnet18": 64, "wrn16_8": 8, "resnext29_4_24": 24}


def recipe_kind(dataset, model, method, recipe):
    """"paper" for the paper's recipe on a whole data set at full width, else what was changed, in words."""
    asked = {**PAPER, "lr": LR.get((dataset["name"], method["name"]), PAPER["lr"])}
    has = {**recipe, "loss": method["loss"], "train_images": dataset["train"]}
    changed = [f"{k} {has.get(k)} (paper {v})" for k, v in asked.items() if has.get(k) != v]
    full = WIDTH.get(model["name"], model["width"])
    if model["width"] != full:
        changed.append(f"width {model['width']} (paper {full})")
    if dataset["name"] not in ("cifar10", "cifar100"):
        changed.append(f"data set {dataset['name']}, not one of the paper's")
    return "paper" if not changed else "shortened: " + "; ".join(changed)
