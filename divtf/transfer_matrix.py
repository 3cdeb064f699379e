"""The command for transfer matrices: python -m divtf.transfer_matrix --runs=runs/table2 --images=1000.

Attacks every finished target below a directory, and the surrogate and the static model that these share, and
scores every target on the images of each. The surrogate's row is Table 2's protocol; a target on its own
images is a white-box attack; and modes ens and ens_div train on such images of the static model. Targets of
one seed start from the same weights, which the surrogate and the static model do not.
"""

from divtf.commands import transfer_matrix

if __name__ == "__main__":
    transfer_matrix.launch()
