"""What a drop-in shows of its method: options that are read and changed as attributes, and where its draws stand."""
import copy
import numbers

OWN = {  # options that every drop-in has: what is allowed, and how that is said
    "num_classes": (lambda v: isinstance(v, numbers.Integral) and v >= 1, "a whole number, at least 1"),
    "label_smoothing": (lambda v: isinstance(v, numbers.Real) and 0 <= v < 1, "a number, at least 0 and below 1"),
    "prob": (lambda v: isinstance(v, numbers.Real) and 0 <= v <= 1, "a number from 0 to 1"),
    "seed": (lambda v: v is None or (isinstance(v, numbers.Integral) and 0 <= v < 2**63),
             "a whole number from 0 to 2**63 - 1, or None"),
    "saliency": (lambda v: v is None or callable(v), "a function of the images, or None"),
}


def looks_at_saliency(method):
    """ValueError for a method that has no use for maps."""
    if not hasattr(method, "mix_by"):
        raise ValueError(f"{type(method).__name__} looks at no saliency: leave out saliency=")


class Settings:
    """An object with a `method`, whose options it has as attributes; `prob` and `loss` are its own."""

    def __getattr__(self, name):  # what the object has not itself
        method = self.__dict__.get("method")
        if method is not None and name in method.options():
            return getattr(method, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name, value):
        method = self.__dict__.get("method")
        if name in OWN and not OWN[name][0](value):
            shown = f"a {type(value).__name__}" if name == "saliency" else repr(value)
            raise ValueError(f"{name} is {shown}; it must be {OWN[name][1]}")
        value = int(value) if name in ("num_classes", "seed") and value is not None else value
        if method is not None and name == "saliency" and value is not None:
            looks_at_saliency(method)
        if method is not None and name == "seed":
            method.generator = method.host = None  # the next batch makes new ones
        if name == "bn" and value is None and (method is None or "bn" in method.options()):
            # "batch" in a call, the method's own in `loss`
            return super().__setattr__(name, value)
        if method is not None and name in method.options() and name not in ("prob", "loss"):
            trial = copy.copy(method)
            setattr(trial, name, value)
            trial.__post_init__()  # a ValueError, if it is out of range
            setattr(method, name, getattr(trial, name))
            if name != "bn":  # which both have
                return
        elif method is not None and (name in ("loss", "bn") or not (hasattr(self, name) or name.startswith("_"))):
            raise AttributeError(f"{type(self).__name__} has no {name!r} that can be set; it has prob, enabled, "
                                 f"{', '.join(k for k in method.options() if k not in ('prob', 'loss'))}")
        super().__setattr__(name, value)

    def __repr__(self):
        own = {k: getattr(self, k) for k in ("label_smoothing", "prob", "seed")}
        own |= {"bn": self.bn} if "bn" in self.method.options() else {}
        own |= {"loss": self.method.criterion} if "criterion" in self.method.__dict__ else {}
        shown = {**self.method.options(), **own, "model": self.model and type(self.model).__name__}
        return f"{type(self).__name__}({self.num_classes}, {', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def state_dict(self):
        """Where the generators of `seed` are, for a checkpoint; {} without a seed: PyTorch draws."""
        method = self.method
        if method.generator is None or method.host is None:
            return {}
        return {"generator": method.generator.get_state(), "device": str(method.generator.device),
                "host": method.host.getstate()}

    def load_state_dict(self, state):
        """Go on with the draws where `state_dict` was taken, on that kind of device; a loader's workers draw anew."""
        if state:
            try:
                self.method.seed(0, state["device"])
            except (RuntimeError, AssertionError) as error:
                raise ValueError(f"these draws were made on {state['device']}, which is not here; they go on there, or "
                                 "start anew from a seed") from error
            self._drawn_in = 0
            self.method.generator.set_state(state["generator"].cpu())
            version, numbers, gauss = state["host"]
            self.method.host.setstate((version, tuple(numbers), gauss))
