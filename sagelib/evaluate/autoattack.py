"""AutoAttack, by the package that carries it: F. Croce, M. Hein, "Reliable Evaluation of
Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks", ICML 2020.
https://arxiv.org/abs/2003.01690
"""
import torch


def autoattack(seen, z, y, epsilon, norm="linf", attacks=None, seed=0):
    """Adversarial images for images z (B, C, H, W) in [0, 1] and labels y (B,); `seen`: a function
    of such images.

    `attacks`: some of "apgd-ce", "apgd-t", "fab-t", "square"; None for all four. Its budget counts
    in clamped pixels.
    """
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise ImportError(
            "AutoAttack needs pyautoattack: pip install 'sagelib[attacks]'") from error

    class Module(torch.nn.Module):
        def forward(self, x):
            return seen(x)

    kind = {"version": "standard"
            } if attacks is None else {"version": "custom", "attacks": list(attacks)}
    attack = AutoAttack(Module().eval(), eps=epsilon, norm={"linf": "Linf", "l2": "L2"}[norm],
                        seed=seed, device=z.device, **kind)
    with torch.enable_grad():
        return attack.run_standard_evaluation(z, y, batch_size=len(z)).detach()
