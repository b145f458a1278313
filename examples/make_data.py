"""Make the four little data sets of the demo: `python examples/make_data.py [--out DIR]`.

Each is the notebook of one contributor, in plain English. Every example mentions two things
that pull in opposite directions, and its label says which of them holds (now, in fact, in the
end, or first). So the words alone never decide: what counts is which cue (`until`, `thought`,
`no longer` ...) stands with which thing, and that is what the four worlds have in common.

A world is one function: it takes a label and a `Pick`, draws a template and its fillers, and
returns a text (or a pair) that bears the label. One filler in four of each list is kept for
the test set, so that learning phrases by heart is not enough. The same script always writes
the same bytes.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SEED = 13
SIZES = {"train": 340, "validation": 100, "test": 200}
HELD_OUT_EVERY = 4


def items(text: str) -> list[str]:
    """The comma-separated fillers of a text block."""
    return [" ".join(item.split()) for item in text.split(",")]


def lines(text: str) -> list[str]:
    """The templates of a text block, one a line."""
    return [line.strip() for line in text.strip().splitlines()]


class Pick:
    """Draws fillers and templates: only the test set may draw the held-out fillers."""

    def __init__(self, rng: random.Random, *, test: bool) -> None:
        """Draw with `rng`, for the test set or for the others."""
        self._rng = rng
        self._test = test

    def __call__(self, fillers: list[str]) -> str:
        """Draw a filler."""
        if self._test:
            return self._rng.choice(fillers)
        return self._rng.choice(
            [filler for place, filler in enumerate(fillers) if place % HELD_OUT_EVERY != 1]
        )

    def template(self, templates: list[str]) -> str:
        """Draw a template: none of them is held out."""
        return self._rng.choice(templates)

    def chance(self, probability: float) -> bool:
        """Whether something happens this time."""
        return self._rng.random() < probability


def sentence(template: str, **fillers: str) -> str:
    """Fill a template and begin it with a capital letter."""
    text = template.format(**fillers)
    return text[0].upper() + text[1:]


# --- The support desk of a shop: is the customer's matter settled, or open? ------------------

SHOP_ITEMS = items("""kettle, desk lamp, rucksack, hand mixer, garden hose, bicycle pump,
    espresso machine, office chair, alarm clock, toaster, camping stove, vacuum cleaner, bookshelf,
    sewing machine, pressure cooker, radio, suitcase, fan heater, electric drill, bathroom scale,
    folding table, blender, printer, hair dryer, lawn mower, baby monitor, doorbell, coffee grinder,
    standing desk, air mattress, curtain rail, fish tank, record player, umbrella, shower head""")
SHOP_GOOD = items("""perfect, a joy to use, as good as new, well made, convenient, flawless,
    solid and safe, everything I had hoped for, a great help, clean and bright, worth every penny,
    reliable, excellent, easy to use, the pride of the house, beautiful""")
SHOP_BAD = items("""useless, a pain to use, badly scratched, shoddy, a headache, in a sorry state,
    wobbly and unsafe, a bitter disappointment, a nuisance, dirty and dull, a waste of money,
    broken, awful, hard to use, the shame of the house, ugly""")
SHOP_EVENTS = items("""the exchange, your repair, the second delivery, the visit of your fitter,
    my last letter, the house move, the holidays, the spring clean, the power cut, the long weekend,
    your phone call, the yearly service, the safety recall, the change of fuse""")
SHOP_TEMPLATES = lines("""
    The {item} was {early} at first, but then {late}.
    At first {early}, the {item} is now {late}.
    Now {late}, my {item} was {early} before {event}.
    Until {event} the {item} was {early}; now it is {late}.
    Our {item} is no longer {early} but {late}.
    The {item} has been {late} since {event}, and no longer {early}.
    It used to be {early}, but since {event} the {item} has been {late}.
    {late} now, {early} before: that is the story of my {item}.
    After {event} the {item} was {late}, and not {early} any more.
""")


def shop_tickets(label: int, pick: Pick) -> tuple[str, ...]:
    """A customer tells how a thing was and how it is: the later state counts."""
    good, bad = pick(SHOP_GOOD), pick(SHOP_BAD)
    early, late = (bad, good) if label == 0 else (good, bad)
    item, event = pick(SHOP_ITEMS), pick(SHOP_EVENTS)
    template = pick.template(SHOP_TEMPLATES)
    return (sentence(template, item=item, event=event, early=early, late=late),)


# --- A beekeeper's log: is the colony thriving, or ailing? -----------------------------------

HIVES = items("""the willow hive, the rowan hive, the hive by the gate, the blue hive,
    the hive under the pear tree, the old skep, the young colony, the swarm from May,
    the hive on the roof, the green hive, the colony at the brook, the hive in the orchard,
    the split from June, the hive behind the barn, the corner hive, the red hive,
    the colony of the black queen, the hive next to the well, the third hive, the cedar hive""")
HIVE_GOOD = items("""strong and calm, full of brood, heavy with honey, in good health,
    busy and bright, free of mites, well fed, ready for winter, bursting with bees, clean and dry,
    peaceful, in top form, growing fast, rich in pollen, happy with its queen, safe and sound""")
HIVE_BAD = items("""weak and restless, short of brood, starving, in poor health, slow and dull,
    riddled with mites, badly fed, too small for winter, nearly empty, damp and mouldy,
    furious, in bad shape, shrinking fast, out of pollen, without a queen, sick and dying""")
PEOPLE = items("""Ada, my neighbour, the inspector, old Henrik, Marta, the vet, my daughter,
    the apprentice, uncle Paul, Yusuf, the whole club, the beginner, Irina, the mayor,
    my brother""")
GUESSES = lines("""
    {who} thought {hive} was {state}.
    {who} expected {hive} to be {state}.
    {who} believed {hive} was {state}.
    {who} had guessed that {hive} was {state}.
""")
FINDINGS = lines("""
    In truth {hive} is {state}.
    I found {hive} {state}.
    In fact {hive} turned out to be {state}.
    {hive} is really {state}.
""")


def hive_log(label: int, pick: Pick) -> tuple[str, ...]:
    """Two notes on a colony, most often the guess before the finding: the finding counts."""
    good, bad = pick(HIVE_GOOD), pick(HIVE_BAD)
    fact, thought = (good, bad) if label == 0 else (bad, good)
    notes = [(pick.template(GUESSES), thought), (pick.template(FINDINGS), fact)]
    if pick.chance(0.2):
        notes.reverse()
    who, names = pick(PEOPLE), (pick(HIVES), "it")
    return tuple(
        sentence(template, who=who, hive=name, state=state)
        for (template, state), name in zip(notes, names, strict=True)
    )


# --- Kitchen notes: is the food seasoned first, or heated first? -----------------------------

FOODS = items("""carrots, aubergines, chicken thighs, chicken wings, mushrooms, new potatoes,
    prawns, lamb chops, sweet potatoes, turnips, duck legs, green beans, onions, parsnips, peppers,
    leeks, courgettes, fish fillets, meatballs, fish cakes, beetroots, tomatoes, sardines, mussels,
    artichokes, spring onions, pork ribs, sausages, sprouts, chestnuts""")
SEASONINGS = items("""salt/salting/, pepper/peppering/, dust/dusting/ with paprika,
    spice/spicing/ with cumin, sprinkle/sprinkling/ with thyme, season/seasoning/ with chilli,
    perfume/perfuming/ with cardamom, coat/coating/ with mustard, dress/dressing/ with vinegar,
    drizzle/drizzling/ with soy sauce, flavour/flavouring/ with garlic,
    toss/tossing/ in lemon juice, scatter/scattering/ with rosemary,
    marinate/marinating/ in wine""")
HEATINGS = items("""roast/roasting/, fry/frying/, grill/grilling/, simmer/simmering/,
    bake/baking/, steam/steaming/, boil/boiling/, sear/searing/, toast/toasting/, braise/braising/,
    poach/poaching/, brown/browning/ in the pan, blanch/blanching/, char/charring/ over the fire""")
MEALS = items("""Sunday lunch, the harvest supper, aunt Ines, the children, twelve guests,
    the buffet, the picnic, the winter stew, tomorrow, the wedding, the market stall, the soup""")
KITCHEN_TEMPLATES = lines("""
    {do_first} {food}{how_first}, then {do_then} them{how_then}.
    First {do_first} {food}{how_first}, then {do_then} them{how_then}.
    {do_first} {food}{how_first} before you {do_then} them{how_then}.
    Before {doing_then} {food}{how_then}, {do_first} them{how_first}.
    After {doing_first} {food}{how_first}, {do_then} them{how_then}.
    {do_first} {food}{how_first}; afterwards {do_then} them{how_then}.
    {do_first} {food}{how_first} and, once that is done, {do_then} them{how_then}.
    For {meal}: {do_first} {food}{how_first}, and {do_then} them{how_then} later.
    {do_then} {food}{how_then}, but {do_first} them{how_first} first.
    For {meal}, {do_first} {food}{how_first} and only then {do_then} them{how_then}.
""")


def kitchen_notes(label: int, pick: Pick) -> tuple[str, ...]:
    """Two steps of a recipe, told in either order: the one to be done first counts."""
    steps = [pick(SEASONINGS).split("/"), pick(HEATINGS).split("/")]
    if label == 1:
        steps.reverse()
    (do_first, doing_first, how_first), (do_then, doing_then, how_then) = steps
    text = sentence(
        pick.template(KITCHEN_TEMPLATES),
        food=f"the {pick(FOODS)}",
        meal=pick(MEALS),
        do_first=do_first,
        doing_first=doing_first,
        how_first=how_first,
        do_then=do_then,
        doing_then=doing_then,
        how_then=how_then,
    )
    return (text,)


# --- A ship's log: was the weather calm, or rough? -------------------------------------------

STRETCHES = items("""off the cape, in the bay, north of the islands, in the strait,
    near the lighthouse, on the long crossing, outside the harbour, on the southern route,
    at the anchorage, between the reefs, past the last buoy, in the roads, along the coast,
    abeam of the old fort, in the river mouth, over the banks, in sight of land""")
WATCHES = items("""supper, midnight, dawn, noon, the second watch, the turn of the tide, dusk,
    six bells, sunset, breakfast, the morning watch, high water, the change of crew, moonrise""")
CALM = items("""calm, sunny, mild, peaceful, gentle, clear and still, windless, fair,
    dry and bright, quiet, pleasant, tranquil, friendly, fine, soft and warm, serene""")
ROUGH = items("""stormy, thundery, rough, violent, blustery, wild and wet, foaming, foul, gusty,
    furious, nasty, squally, threatening, dreadful, hard and icy, raging""")
SHIP_TEMPLATES = lines("""
    {where} it was {first} until {when}, then {last}.
    {first} before {when}, the weather {where} was {last} after it.
    {where} it was not {first} any more after {when} but {last}.
    {last} since {when}, {where} the weather had been {first} before.
    {where} the forecast said {first}, but in truth it was {last}.
    Another ship called it {first} {where}; we found it {last} at {when}.
    {last} instead of {first}: so it was {where} after {when}.
    At {when} the weather {where} turned from {first} to {last}.
    Not {first} at all, the weather {where} was {last} at {when}.
""")


def ship_log(label: int, pick: Pick) -> tuple[str, ...]:
    """The weather changed, or was not as foretold: what the ship met in the end counts."""
    calm, rough = pick(CALM), pick(ROUGH)
    first, last = (rough, calm) if label == 0 else (calm, rough)
    where, when = pick(STRETCHES), pick(WATCHES)
    template = pick.template(SHIP_TEMPLATES)
    return (sentence(template, where=where, when=when, first=first, last=last),)


# --- Writing them down -----------------------------------------------------------------------


@dataclass(frozen=True)
class DataSet:
    """A world: what it is called, what its labels are, and how to write an example of one."""

    name: str
    task: str
    labels: tuple[str, ...]
    notes: str
    write: Callable[[int, Pick], tuple[str, ...]]


DATA_SETS = (
    DataSet(
        name="hive_log",
        task="pair-classification",
        labels=("thriving", "ailing"),
        notes="Two notes of a beekeeper on a colony: what somebody thought, and what was found. "
        "Label: how the colony really is.",
        write=hive_log,
    ),
    DataSet(
        name="kitchen_notes",
        task="classification",
        labels=("season_first", "heat_first"),
        notes="A cook's note of two steps, told in either order. Label: which is done first.",
        write=kitchen_notes,
    ),
    DataSet(
        name="ship_log",
        task="classification",
        labels=("calm", "rough"),
        notes="A log entry on weather that changed, or was not as foretold. "
        "Label: the weather that the ship met in the end.",
        write=ship_log,
    ),
    DataSet(
        name="shop_tickets",
        task="classification",
        labels=("settled", "open"),
        notes="A customer on how a thing was and how it is. Label: whether it is all right now.",
        write=shop_tickets,
    ),
)


def examples(data_set: DataSet) -> Iterator[tuple[str, list[dict[str, str | int]]]]:
    """Each split with its examples: every label equally often, no example twice anywhere."""
    rng = random.Random(f"{SEED} {data_set.name}")
    seen: set[tuple[str, ...]] = set()
    for split, size in SIZES.items():
        pick = Pick(rng, test=split == "test")
        rows: list[dict[str, str | int]] = []
        while len(rows) < size:
            label = len(rows) % len(data_set.labels)
            texts = data_set.write(label, pick)
            if texts not in seen:
                seen.add(texts)
                fields = dict(zip(("text", "text_pair"), texts, strict=False))
                rows.append({**fields, "label": label})
        rng.shuffle(rows)
        yield split, rows


def write(data_set: DataSet, folder: Path) -> None:
    """Write a data set in the form of the platform: a file per split, and `dataset.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in examples(data_set):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8", newline="\n")
    card = {
        "name": data_set.name,
        "task": data_set.task,
        "labels": data_set.labels,
        "source": "made for this project by examples/make_data.py",
        "license": "Apache-2.0",
        "sizes": SIZES,
        "notes": data_set.notes,
    }
    text = json.dumps(card, indent=1) + "\n"
    (folder / "dataset.json").write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Write the four data sets."""
    parser = argparse.ArgumentParser(description="Make the data sets of the demo.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    out: Path = parser.parse_args().out
    for data_set in DATA_SETS:
        write(data_set, out / data_set.name)


if __name__ == "__main__":
    main()
