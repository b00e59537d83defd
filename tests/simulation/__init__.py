"""Three simulations under a clock that jumps, in which production code runs unchanged.

`settle.py`: days of many channels, for what happens between the close and the expiry. Parts: `loop storage vault payer auditor`.

`world.py`: the whole system, for what happens when anything fails at any moment; one seed is one small world. Parts:

    kernel.py    the queue of events, the clock, and processes that are event loops: killed, stopped, slowed down
    network.py   bytes between processes: late, in pieces, held back, cut off
    disk.py      what a crash and a power loss leave; RocksDB's and SQLite's stand-ins on it
    hosts.py     how store, signer and workers are started, and what production code finds where it looks for the outside
    people.py    payers and thieves, who speak HTTP
    plan.py      what a seed means: a numbered list of what is done, and of troubles
    troubles.py  what goes wrong
    judge.py     what was promised, what is safe, what was signed, what is on the chain
    breaks.py    planted faults that must be found
    cluster/     worlds of several machines: their stores on a model of PostgreSQL (`--engine postgres`)

`pinning.py`, one settlement at a time (`rig.py`) against who pins it, copies it, and makes blocks dear.

All share the chain (`blockchain.py`, `node.py`), its mempools (`mempool.py`) and what is done to settlements there (`attacks.py`).
"""
