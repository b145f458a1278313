"""
What the database knows, in the form that Prometheus reads: counters, gauges and histograms.

All API processes of a Repository show the same numbers here, since they read them from one
database: whoever adds them up over processes counts them twice.
"""
