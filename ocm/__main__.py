"""``python -m ocm``: the command ``ocm``."""

from ocm.cli import main

if __name__ == "__main__":
    main()
