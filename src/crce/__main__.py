"""`python -m crce` is the command `crce`."""

from crce.cli.main import run


if __name__ == "__main__":
    run()
