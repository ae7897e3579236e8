"""The networks, one file each: `build(classes, width)`, and `.stages` for those who hook into the
middle."""
