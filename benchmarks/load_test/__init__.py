"""The article's load test, done honestly: one trace, replayed identically bare and dispatched: ``make load-test``."""
