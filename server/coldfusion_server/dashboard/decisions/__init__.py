"""
What maintainers decide in a browser: a form, a page that asks once, and the deed.

    views.py        the addresses: a form is shown, what is filled in is asked about, and done
    catalogue.py    all decisions as a table
    subjects.py     what is decided on: models, rounds, bases, replays, contributions
    previews.py     what a decision will do, in sentences; pure
    outcomes.py     each one done by its service, and what came of it
    choices.py      what the boxes of a form offer to tick
    known.py        what the fields of a policy can name
    sections.py     in which order the fields of a long form stand; pure
    forms.py        a pydantic model as a form, and back; pure
    difference.py   old values beside new ones; pure
    tokens.py       the number by which a form belongs to a session
"""
