"""The command for evaluations: python -m divtf.evaluate --runs=runs/demo --protocol=strong.

Attacks finished targets below a directory, as `divtf.table2` leaves them, by a protocol: from several
surrogates, with the attacks of today, with the targets' own gradients and by queries; looks for masked
gradients, and measures how well the members' disagreement gives adversarial images away.
"""

from divtf.commands import evaluate

if __name__ == "__main__":
    evaluate.launch()
