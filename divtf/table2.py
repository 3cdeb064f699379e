"""The command for Table 2: python -m divtf.table2 --models=conv3,conv4,resnet20,mix."""

from divtf.commands import table2

if __name__ == "__main__":
    table2.launch()
