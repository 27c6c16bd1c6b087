"""`python -m shconv.bench.gpu`."""

import sys

from shconv.bench.gpu.command import main

if __name__ == "__main__":
    sys.exit(main())
