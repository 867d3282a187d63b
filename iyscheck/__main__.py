"""`python -m iyscheck`: the command line."""

from iyscheck.cli.app import main

if __name__ == "__main__":
    main()
