"""`python -m spgsurgeon`, and what torchrun starts."""

from spgsurgeon.cli.app import main

if __name__ == "__main__":
    main()
