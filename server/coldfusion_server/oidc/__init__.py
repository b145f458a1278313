"""
What an OpenID Connect provider says of people, and whether to believe it. Nothing of our own state.

    options.py    the settings ``oidc_...``, checked as a whole
    fetching.py   requests to the provider, bounded in time and size; redirects are not followed
    request.py    what a browser takes to the provider and back
    provider.py   its endpoints, its keys, codes that become id tokens
    id_tokens.py  signature and claims of an id token; pure
    people.py     claims to a person and a role; pure
"""
