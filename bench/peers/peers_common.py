"""What the shop and the payers of x402_app.py agree on; run in the scratch installation."""

from eth_account import Account

NETWORK = "eip155:84532"
ASSET = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
RECEIVER = Account.from_key("0x" + "11" * 32).address
DELAY = 86_400
SALT = "0x" + "00" * 32
CHANNELS = 32


def payer(number: int):
    return Account.from_key("0x" + f"{1000 + number:064x}")
