"""The command for section 3.4, Figure 3: python -m divtf.figure3 --runs=runs/sparsity."""

from divtf.commands import figure3

if __name__ == "__main__":
    figure3.launch()
