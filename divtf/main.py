"""The command for one target: python -m divtf.main --model=resnet20 --mode=div."""

from divtf.commands import main

if __name__ == "__main__":
    main.launch()
