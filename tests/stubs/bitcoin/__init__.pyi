# python-bitcoinlib has no types: what we use of it, and no more. tests/unit/test_bitcoin_stubs.py holds these files to the package.
