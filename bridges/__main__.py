"""``python -m bridges <command>``: the same as the console script ``bridges <command>``."""

from bridges.cli.main import main

if __name__ == "__main__":
    main()
