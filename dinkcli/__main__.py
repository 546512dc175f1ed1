"""``python -m dinkcli``."""

from dinkcli.cli import main

if __name__ == "__main__":
    main()
