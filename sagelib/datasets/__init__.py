"""The data sets, one file each: `load(root) -> train, test`, two `Dataset`s with the same classes."""
