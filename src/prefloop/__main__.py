"""`python -m prefloop`."""

from prefloop.cli import entry

if __name__ == "__main__":
    entry()
