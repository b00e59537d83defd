"""Mutants that are no slips: nobody could tell them from the original, and why. By module, then by line and change."""

_HASHED_WITHOUT = "what a signature is made over leaves the input's script out"
_NEVER_SIGNED = "when a channel was opened is in no script and no signature"
_RETURNED_ON = "a spend that deep has confirmations, and the next line returns for any that has"
_ONLY_LONGER = "only pushes longer than one byte are looked at afterwards"

EQUIVALENT: dict[str, dict[tuple[str, str], str]] = {
    "paychan/core/script.py": {
        ("if len(data) <= 0xFF:", "255 becomes 256"): "256 does not fit into a byte: the same ValueError is raised there",
    },
    "paychan/core/settlement.py": {
        (
            "script_sig = _script_sig(client_signature, bytes(_SIGNATURE_SIZE_MAX), terms.redeem_script)",
            "the first two arguments swap",
        ): "only the size counts",
        (
            'unsigned = _spend(terms, b"", settlement_outputs(terms, payment, destination, fee))',
            r"b'' becomes b'\x00'",
        ): _HASHED_WITHOUT,
        (
            'script_sig = bytes(tx.vin[0].scriptSig) if len(tx.vin) == 1 else b""',
            r"b'' becomes b'\x00'",
        ): "what has other than one input differs from the transaction that is rebuilt, whatever is read here",
        (
            "size = script_sig[len(prefix)] if len(script_sig) > len(prefix) else 0",
            "0 becomes 1",
        ): "of a script that has ended nothing is taken",
    },
    "paychan/core/refund.py": {
        ('digest = SignatureHash(redeem, spend(b""), 0, SIGHASH_ALL)', r"b'' becomes b'\x00'"): _HASHED_WITHOUT,
    },
    "paychan/core/sharding.py": {
        ("_MASK = (1 << 64) - 1", "1 becomes 2 (2)"): "the lowest 16 bits are dropped afterwards",
        ('head = int.from_bytes(outpoint[:8], "little")', "8 becomes 9"): "what is above 64 bits is masked afterwards",
        ('vout = int.from_bytes(outpoint[32:36], "little")', "36 becomes 37"): "an outpoint has 36 bytes",
    },
    "paychan/core/standardness.py": {
        ("_DUST_FEE_PER_KB = 3000", "3000 becomes 3001"): "rounded down, the limits of both script types stay",
        ('pushed.append(b"" if opcode == 0 else bytes((opcode - _OP_1 + 1,)))', r"b'' becomes b'\x00'"): _ONLY_LONGER,
        ('pushed.append(b"" if opcode == 0 else bytes((opcode - _OP_1 + 1,)))', "Sub becomes Add"): _ONLY_LONGER,
        ('pushed.append(b"" if opcode == 0 else bytes((opcode - _OP_1 + 1,)))', "1 becomes 2"): _ONLY_LONGER,
        (
            "size, at = script_sig[at] if at < len(script_sig) else 0, at + 1",
            "0 becomes 1",
        ): "both are less than such a push may have",
        ("elif opcode < _OP_PUSHDATA1:", "Lt becomes LtE"): "that opcode is the case before",
    },
    "paychan/_fast/payment.pyx": {
        ("return False", "becomes return True (2)"): "the bounds of a payment's size, looked at before, are the same",
    },
    "store/table.py": {
        (
            "ChannelState.parse(entry.state)",
            "left out",
        ): "the compiled reader has refused the same records, and no transition leads to an unknown phase",
    },
    "store/group.py": {
        (
            "funding_value = ChannelTerms.parse(entry.outpoint, terms).funding_value if terms else 0",
            "0 becomes 1",
        ): "without terms the value is not used",
    },
    "signer/keys.py": {
        (
            "secret = parse_key_text(os.read(descriptor, KEY_FILE_SIZE_MAX + 1))",
            "1 becomes 2",
        ): "what is longer than a key is refused however much is read",
        (
            "descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not make us wait",
            "BitOr becomes BitAnd (2)",
        ): "Python opens every file so that programs do not inherit it",
        ('raise ValueError("is not a regular file")', "left out"): "what is none reads as no key, and is refused for that",
        (
            "descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)",
            "420 becomes 421",
        ): "the mode is set afterwards",
    },
    "paychan/server/channels/opening.py": {
        (
            "if verify_payment(self.terms(request, output, server_pubkey, 0), request.payment):",
            "0 becomes 1",
        ): _NEVER_SIGNED,
    },
    "paychan/server/channels/life.py": {
        (
            "if not hmac.compare_digest(self._channels.newest_payment(outpoint), token):",
            "the first two arguments swap",
        ): "equality has no order",
        (
            "await self._load_or_reject(outpoint)",
            "left out",
        ): "the one after the write that is waited for does the same; without the channel there is none to wait for",
    },
    "paychan/server/settlement/settling.py": {
        ("return True", "returns None"): _RETURNED_ON,
        ("return True", "True becomes False"): _RETURNED_ON,
    },
    "paychan/server/shards/loading.py": {
        ("FAILED = 4", "4 becomes 5"): "the numbers only tell the outcomes apart",
    },
}
