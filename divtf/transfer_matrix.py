"""The command for transfer matrices: python -m divtf.transfer_matrix --runs=runs/table2."""

from divtf.commands import transfer_matrix

if __name__ == "__main__":
    transfer_matrix.launch()
