"""`python -m gear` is `gear`; torchrun starts it so: `torchrun ... -m gear train RECIPE`."""

from gear.cli import main

if __name__ == "__main__":
    main()
