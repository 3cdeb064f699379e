"""The command for section 3.4: python -m divtf.figure3 --runs=runs/sparsity.

Compares finished T_Div runs with ReLU and with LeakyReLU members (`divtf.table2 --activation=...`): how many
entries of the input gradients, and terms of their inner products, are zero; and how GAL falls in training.
"""

from divtf.commands import figure3

if __name__ == "__main__":
    figure3.launch()
