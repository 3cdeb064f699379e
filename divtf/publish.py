"""Put figures into the repository: python -m divtf.publish --run=runs/demo --name=demo.

What the runs below a directory have recorded goes to runs/results/NAME/: records as JSON, the pictures and
the CSV made of them, and text in README.md between the lines <!-- NAME --> and <!-- /NAME -->, so that no
figure is typed by hand; words written around them stay. The index, runs/results/README.md, follows, and for
the demo the main README.md. `--add` keeps what is there of other seeds and targets, as those of another
machine; seeds that were not trained and tried alike are refused. `--redraw` makes all that is made of the
records anew, for every name.
"""

from divtf.commands import publish

if __name__ == "__main__":
    publish.launch()
