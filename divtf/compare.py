"""The command for comparisons: python -m divtf.compare --flagfile=flags/compare.flags.

Trains defences by recipes on the same images at the same budget and seeds, evaluates them by a protocol, and
puts what is left of each beside a reference: clean, by surrogate, in all, with paired tests and cost.
"""

from divtf.commands import compare

if __name__ == "__main__":
    compare.launch()
