"""The command for Figure 5: python -m divtf.figure5 --runs=runs/table2."""

from divtf.commands import figure5

if __name__ == "__main__":
    figure5.launch()
