"""The networks, one file each: `build(classes, width)`. Manifold Mixup mixes after `.stages`."""
