"""Pages that people read: python -m divtf.report DIRECTORY.

Of the directory of a run, a table, a comparison or published records, makes report.html there anew, from its
records alone. Of a directory that holds such ones, as runs, makes all of theirs and index.html, which lists
them.
"""

from divtf.commands import report

if __name__ == "__main__":
    report.launch()
