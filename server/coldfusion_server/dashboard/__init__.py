"""
What maintainers and contributors watch: server-rendered pages over the API's own data.

    install.py      puts all of it into an application
    views.py        the pages, and the parts of them that are fetched again when something happens
    loading.py      what each page or part shows, read through the services
    shared_parts.py parts that many visitors fetch at once are rendered once
    lineage.py, health.py, webhooks.py  their pages; the others are in views.py
    figures/        what pages draw, as JSON, CSV and SVG
    graph.py        where the lineage's bases, contributions and contributors stand; pure
    decisions/      what maintainers decide by forms: shown, asked once, done by the services
    said.py         what came of a decision, said once on the page that follows
    posting.py      where a posted form comes from, and what is in it
    login.py        a token becomes a session cookie; by its word alone nothing is written
    sign_in.py      a provider of identities says who it is: the same session
    begun.py        the cookie of a sign-in that is under way
    error_pages.py  errors as HTML, where a person reads them
    cards.py        the live model card and its picture, for programs and other sites
    card_text.py    what was measured of a base as Markdown; pure
    scores.py       evaluations as one table and one line for each protocol and suite; pure
    values.py       scores with their errors, averages and differences of them; pure
    charts.py       numbers to SVG geometry; pure
    timeline.py     rounds and moves of the head as marks, in words; pure
    strips.py       where the marks of a time line stand; pure
    heat.py         cosines between updates as a heat map; pure
    beside.py       values below each other or on one line, to see which stands out; pure
    differences.py  differences of scores as bars with their errors; pure
    svg.py          the pieces of those three: escaped, in the page's colours; pure
    telling.py      charts in words; pure
    words.py        states and rounds in words; pure
    formats.py      sizes, durations, scores as text; pure
    rendering.py    the Jinja2 environment and the assets' versioned addresses
    templates/      one file a page; parts/ has what is swapped live or used twice; macros, tables
                    and charts are what several pages show alike
    static/         own CSS and JavaScript, vendored htmx; nothing is built, nothing comes from afar

How a page stays alive: `parts/live.html` holds one stream of `/v1/events/stream`. `static/live.js`
gathers what arrives and asks htmx to fetch each `data-live` part again, at most once a second.
A part that shows something moving (bytes arriving, a fuse) adds a poll of its own. Without
JavaScript a page is simply as new as its last load.
"""
