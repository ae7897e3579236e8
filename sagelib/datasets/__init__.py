"""The data sets, one file each: `load(root) -> train, test`, two `Dataset`s with the same classes.

Those for few-shot learning give three, `train, val, test`, that share no class.
"""
