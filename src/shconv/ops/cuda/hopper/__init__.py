"""The kernels for Hopper: TMA descriptors over flat pixels. passes is the way in; importing it imports no triton."""
