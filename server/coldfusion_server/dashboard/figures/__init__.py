"""
What the pages draw, as data and as pictures of their own: JSON, CSV, SVG.

    figure.py     what every figure is: a table of named columns, and perhaps a drawing of it; pure
    formats.py    a figure as JSON, as CSV and as SVG; pure
    of_model.py   the figures of a model
    lineage.py    that of a model's lineage
    of_round.py   the figures of a round
    routes.py     their addresses
"""
