"""Images, clean and attacked, with what each member of a target makes of them."""

from collections.abc import Sequence

from divtf.reporting.marks import name_of
from divtf.reporting.page.elements import Strip, View
from divtf.storage.examples import ExamplesRecord, Seen
from divtf.storage.records import CLEAN, Record


def strips(records: Sequence[ExamplesRecord], beside: Sequence[Record] = ()) -> list[Strip]:
    """A strip for each target and seed that kept images."""
    return [_strip(record, name_of([record], beside)) for record in records if record.examples]


def _strip(record: ExamplesRecord, name: str) -> Strip:
    def said(label: int) -> str:
        names = record.class_names
        return names[label] if 0 <= label < len(names) else str(label)

    def view(seen: Seen, label: int) -> View:
        return View(
            "clean" if seen.attack == CLEAN else f"{seen.attack}, epsilon {seen.epsilon:g}",
            seen.png,
            said(seen.ensemble),
            tuple(map(said, seen.members)),
            seen.ensemble == label,
            tuple(member == label for member in seen.members),
        )

    images = tuple(
        (said(each.label), tuple(view(seen, each.label) for seen in each.seen)) for each in record.examples
    )
    caption = (
        f"{name}, seed {record.seed}: the first {len(images)} attacked test images, clean and "
        f"changed on {record.surrogate or 'a surrogate'} by the attack that leaves the least of each epsilon"
    )
    return Strip(record.target, caption, images)
