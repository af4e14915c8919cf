"""``python -m bridges.run``: one run, or a sweep of runs (`bridges.cli.run`)."""

from bridges.cli.main import main

if __name__ == "__main__":
    main(["run"])
