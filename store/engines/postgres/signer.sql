-- The ledger that the signers of all machines share: for each outpoint what was signed and what was noted. It stands beside each
-- signer's own (signer/ledger.py), and the stricter of the two counts. `paychan-store postgres init` runs this after schema.sql, in
-- the same transaction, with the role's name in the place of @SIGNER@: it may call the functions at the end, and sees no table.
--
-- Errors of our own are those of schema.sql. Writers wait for each other at the ledger's row: what one has judged, no other changes
-- between its look and its write.

SET LOCAL search_path = paychan, pg_temp;

CREATE TABLE signer_ledger (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()),  -- by which signers know it from another
    network text,                           -- of the first signer, as is the key
    pubkey bytea
);
INSERT INTO signer_ledger DEFAULT VALUES;

CREATE TABLE signer (
    instance bytea PRIMARY KEY,             -- 16 random bytes from its own ledger
    writes bigint NOT NULL                  -- so far; never goes back
) WITH (fillfactor = 20);

CREATE TABLE signer_signed (
    outpoint bytea PRIMARY KEY,
    change_value bigint NOT NULL,           -- satoshi, the lowest signed
    fee bigint NOT NULL,                    -- satoshi, of the newest version
    versions int NOT NULL,
    txid bytea NOT NULL,                    -- 32 bytes, internal order, of the newest version
    signed_at bigint NOT NULL               -- unix seconds, by the clock of its signer
);

CREATE TABLE signer_noted (
    outpoint bytea PRIMARY KEY,
    change_value bigint NOT NULL,           -- satoshi, the lowest noted
    noted_at bigint NOT NULL
);

CREATE TABLE signer_fee (                   -- of the last day only
    outpoint bytea NOT NULL,
    fee bigint NOT NULL,                    -- satoshi, of one version
    signed_at bigint NOT NULL,
    PRIMARY KEY (outpoint, fee)
);

-- What every write of a signer begins with. Returns its number.
CREATE FUNCTION signer_pass(_instance bytea) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE number bigint;
BEGIN
    PERFORM replicated();
    PERFORM FROM signer_ledger FOR UPDATE;
    UPDATE signer SET writes = writes + 1 WHERE instance = _instance RETURNING writes INTO number;
    IF NOT FOUND THEN RAISE EXCEPTION 'this signer has not begun' USING ERRCODE = 'PC001'; END IF;
    RETURN number;
END $$;

-- Each version of a settlement may be the one that is mined, so of each channel the dearest counts.
CREATE FUNCTION signer_fees(_outpoint bytea, _since bigint, _now bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(dearest), 0)::bigint FROM (
        SELECT max(fee) AS dearest FROM signer_fee WHERE outpoint <> _outpoint AND signed_at BETWEEN _since AND _now GROUP BY outpoint
    ) each
$$;

-- A signer begins. Returns which ledger this is, and how many writes of this signer it has.
CREATE FUNCTION signer_begin(_instance bytea, _network text, _pubkey bytea, OUT ledger bytea, OUT number bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    PERFORM replicated();
    UPDATE signer_ledger SET network = _network, pubkey = _pubkey
        WHERE network IS NULL OR (network = _network AND pubkey = _pubkey) RETURNING id INTO ledger;
    IF NOT FOUND THEN RAISE EXCEPTION 'the database belongs to another key or network' USING ERRCODE = 'PC001'; END IF;
    INSERT INTO signer VALUES (_instance, 0) ON CONFLICT DO NOTHING;
    SELECT writes FROM signer WHERE instance = _instance INTO number;
END $$;

CREATE FUNCTION signer_beat(_instance bytea, OUT number bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    number := signer_pass(_instance);
END $$;

-- What a judgement over an outpoint depends on.
CREATE FUNCTION signer_memory(_outpoint bytea, _since bigint, _now bigint,
    OUT change_value bigint, OUT fee bigint, OUT versions int, OUT txid bytea, OUT noted bigint, OUT fees bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT s.change_value, s.fee, s.versions, s.txid FROM signer_signed s WHERE s.outpoint = _outpoint
        INTO change_value, fee, versions, txid;
    SELECT n.change_value FROM signer_noted n WHERE n.outpoint = _outpoint INTO noted;
    fees := signer_fees(_outpoint, _since, _now);
END $$;

-- A version is about to be signed, judged on so many versions and on such a sum of fees: if another signer was first, nothing is done,
-- and it is judged anew. One that is there already is confirmed by this call's own write.
CREATE FUNCTION signer_put(_instance bytea, _outpoint bytea, _change bigint, _fee bigint, _versions int, _txid bytea,
    _seen_versions int, _seen_fees bigint, _since bigint, _now bigint, OUT number bigint, OUT done boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
DECLARE written bigint;
BEGIN
    number := signer_pass(_instance);
    done := EXISTS (SELECT FROM signer_signed WHERE outpoint = _outpoint AND change_value = _change AND fee = _fee
        AND versions = _versions AND txid = _txid);
    IF done OR signer_fees(_outpoint, _since, _now) > _seen_fees THEN RETURN; END IF;
    INSERT INTO signer_signed AS s SELECT _outpoint, _change, _fee, _versions, _txid, _now
        WHERE (_seen_versions = 0 OR EXISTS (SELECT FROM signer_signed WHERE outpoint = _outpoint))
            AND NOT EXISTS (SELECT FROM signer_noted WHERE outpoint = _outpoint AND change_value < _change)
        ON CONFLICT (outpoint) DO UPDATE SET change_value = excluded.change_value, fee = excluded.fee, versions = excluded.versions,
            txid = excluded.txid, signed_at = excluded.signed_at
        WHERE s.versions = _seen_versions AND excluded.change_value <= s.change_value AND excluded.versions > s.versions;
    GET DIAGNOSTICS written = ROW_COUNT;
    done := written = 1;
    IF done THEN
        DELETE FROM signer_fee WHERE signed_at NOT BETWEEN _since AND _now;
        INSERT INTO signer_fee VALUES (_outpoint, _fee, _now) ON CONFLICT (outpoint, fee) DO UPDATE SET signed_at = excluded.signed_at;
    END IF;
END $$;

CREATE FUNCTION signer_note(_instance bytea, _outpoint bytea, _change bigint, _now bigint, OUT number bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    number := signer_pass(_instance);
    INSERT INTO signer_noted AS n VALUES (_outpoint, _change, _now) ON CONFLICT (outpoint) DO UPDATE
        SET change_value = excluded.change_value, noted_at = excluded.noted_at WHERE excluded.change_value < n.change_value;
END $$;

CREATE FUNCTION signer_forget(_instance bytea, _outpoint bytea, OUT number bigint, OUT forgotten boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    number := signer_pass(_instance);
    DELETE FROM signer_noted WHERE outpoint = _outpoint;
    forgotten := FOUND;
END $$;

-- What a signer has in its own ledger: of each outpoint the stricter counts from now on. Again, it changes nothing.
CREATE FUNCTION signer_load(_instance bytea, _outpoints bytea[], _changes bigint[], _fees bigint[], _versions int[], _txids bytea[],
    _times bigint[], OUT number bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    number := signer_pass(_instance);
    INSERT INTO signer_signed AS s SELECT * FROM unnest(_outpoints, _changes, _fees, _versions, _txids, _times)
        ON CONFLICT (outpoint) DO UPDATE SET
            change_value = least(s.change_value, excluded.change_value), versions = greatest(s.versions, excluded.versions),
            (fee, txid, signed_at) = (SELECT newest.fee, newest.txid, newest.signed_at FROM
                (VALUES (s.change_value, s.fee, s.txid, s.signed_at),
                    (excluded.change_value, excluded.fee, excluded.txid, excluded.signed_at)) newest(change_value, fee, txid, signed_at)
                ORDER BY newest.change_value, newest.fee DESC LIMIT 1)
        WHERE excluded.versions > s.versions OR excluded.change_value < s.change_value
            OR (excluded.change_value = s.change_value AND excluded.fee > s.fee);
END $$;

CREATE FUNCTION signer_load_notes(_instance bytea, _outpoints bytea[], _changes bigint[], _times bigint[], OUT number bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    number := signer_pass(_instance);
    INSERT INTO signer_noted AS n SELECT * FROM unnest(_outpoints, _changes, _times) ON CONFLICT (outpoint) DO UPDATE
        SET change_value = excluded.change_value, noted_at = excluded.noted_at WHERE excluded.change_value < n.change_value;
END $$;

CREATE FUNCTION signer_load_fees(_instance bytea, _outpoints bytea[], _fees bigint[], _times bigint[], OUT number bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    number := signer_pass(_instance);
    INSERT INTO signer_fee AS f SELECT * FROM unnest(_outpoints, _fees, _times) ON CONFLICT (outpoint, fee) DO UPDATE
        SET signed_at = excluded.signed_at WHERE excluded.signed_at > f.signed_at;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA paychan FROM PUBLIC;
REVOKE ALL ON signer_ledger, signer, signer_signed, signer_noted, signer_fee FROM PUBLIC;
GRANT USAGE ON SCHEMA paychan TO @SIGNER@;
GRANT EXECUTE ON FUNCTION signer_begin, signer_beat, signer_memory, signer_put, signer_note, signer_forget,
    signer_load, signer_load_notes, signer_load_fees TO @SIGNER@;
