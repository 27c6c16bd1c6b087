"""Speed and memory as ratios within one run: the op to F.conv2d, networks to their twins, attacks to plain passes."""
