"""
Webhooks: events posted to receivers that are somebody else's, and perhaps hostile.

    urls.py       which addresses a webhook may have, and how much of one is shown; pure
    networks.py   which IP addresses may be connected to; pure
    messages.py   the body and the headers of a delivery, signed; pure
    posting.py    one delivery: a connection to a checked address, bounded in time and in size
"""
