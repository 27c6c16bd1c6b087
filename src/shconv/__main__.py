"""`python -m shconv`, the form in which torchrun and accelerate start a command in several processes."""

from shconv.cli import main

if __name__ == "__main__":
    main()
