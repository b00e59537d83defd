"""Worlds of several machines: their stores on a model of PostgreSQL, real code above it.

tables.py    the schema's functions, rule by rule, over dictionaries: held against a real PostgreSQL by test_tables.py
database.py  its processes: sessions, row locks, a log that standbys confirm, crashes, promotion
driver.py    what asyncpg is for the store's code: calls and answers over the simulated network
manager.py   who promotes a standby, rightly or wrongly, and brings the old primary back
plan.py      what a seed means here besides
world.py     machines with a store and workers each, and what goes wrong among them
"""
