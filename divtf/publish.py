"""The command for published figures: python -m divtf.publish --run=runs/demo --name=demo."""

from divtf.commands import publish

if __name__ == "__main__":
    publish.launch()
