"""The command for Figure 5: python -m divtf.figure5 --runs=runs/table2 --images=200.

Analyses the adversarial subspace of finished targets below a directory, as `divtf.table2` leaves them. The
epsilons are thirds of the data set's largest: for CIFAR-10 the paper's 0.03, 0.06 and 0.09; for MNIST, of
which the paper shows no such figure, 0.1, 0.2 and 0.3. `evaluation/gaas.py` says why k is not the paper's 25.
"""

from divtf.commands import figure5

if __name__ == "__main__":
    figure5.launch()
