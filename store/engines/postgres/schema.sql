-- The schema of a store on PostgreSQL: tables, what a store may call, and nothing that it may do besides.
--
-- Errors of our own: PC001 another holds our past (the fence), PC002 what is stored is not what was judged, PC003 the database does not
-- replicate synchronously. Every function is called alone, in a transaction of its own that one round trip begins and ends: a client
-- that dies leaves no lock. `paychan-store postgres init` runs this in one transaction, with the role's name in the place of @ROLE@ and the
-- version in that of @VERSION@.

CREATE SCHEMA paychan;
SET LOCAL search_path = paychan, pg_temp;

CREATE TABLE cluster (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version int NOT NULL,                   -- of this schema
    identity bytea                          -- network, server key, shard count, store id (store/identity.py); of the first store
);
INSERT INTO cluster (version) VALUES (@VERSION@);

-- Several stores are active at once: each writes what belongs to the leases whose rows name it. A row stays when its store is gone.
CREATE TABLE store (
    name text PRIMARY KEY,                  -- of the machine
    number int NOT NULL UNIQUE CHECK (number BETWEEN 1 AND 65535),  -- its workers have number * 65536 + 1 and so on; never changes
    instance bytea NOT NULL,                -- 16 random bytes from its state directory
    fence bigint NOT NULL,                  -- raised at each start and by each takeover
    groups bigint NOT NULL,                 -- durable groups and beats so far; never goes back
    confirmed bigint NOT NULL DEFAULT 0,    -- what the store knew of that when it began. Fewer groups: the database has lost some, and
                                            -- nobody may serve from it
    open_value bigint NOT NULL DEFAULT 0,   -- its part of the satoshi received on open channels. Only the total over all rows means
                                            -- something: a part stays where it is when a lease goes to another store, and may be negative
    begun_value bigint NOT NULL DEFAULT 0,  -- the same of those received on channels whose settlement has begun and is not settled
    open_spent bigint NOT NULL DEFAULT 0,   -- of those spent on open channels
    owners bytea NOT NULL DEFAULT ''        -- its workers, and which of its leases each serves, as OWNERS has them; '': it has none
) WITH (fillfactor = 20, toast_tuple_target = 128);
ALTER TABLE store ALTER owners SET STORAGE EXTERNAL;  -- else each group would write it again

CREATE TABLE shard (
    shard int PRIMARY KEY,                  -- the shards, then the leases
    store text NOT NULL DEFAULT '',         -- '': nobody's
    epoch bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- What payments write. No indexed column changes, so that an update stays in its page (HOT).
CREATE TABLE state (
    outpoint bytea PRIMARY KEY,
    phase smallint NOT NULL,
    value bigint NOT NULL,                  -- satoshi that the payer would get back
    revision bigint NOT NULL,               -- of the channel's sales; 0: nothing was sold
    record bytea NOT NULL                   -- the state record; the columns before it say the same
) WITH (fillfactor = 70);
ALTER TABLE state ALTER record SET STORAGE PLAIN;

-- Everything else, under the keys that an embedded store has (store/keys.py): terms, settlements, funding transactions, indexes.
CREATE TABLE record (key bytea PRIMARY KEY, value bytea NOT NULL);

CREATE FUNCTION replicated() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_standby_names') = '' OR current_setting('fsync') <> 'on'
       OR current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        RAISE EXCEPTION 'the database does not replicate synchronously' USING ERRCODE = 'PC003';
    END IF;
END $$;

-- What every write of a store begins with: fence, number of the group, sums.
CREATE FUNCTION pass(_store text, _fence bigint, _groups bigint, _open bigint, _begun bigint, _spent bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM replicated();
    UPDATE store SET groups = _groups, open_value = _open, begun_value = _begun, open_spent = _spent
        WHERE name = _store AND fence = _fence AND groups = _groups - 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'store % is not at fence %, group %', _store, _fence, _groups - 1 USING ERRCODE = 'PC001';
    END IF;
END $$;

-- Tell the other stores to look. (Transactions that do so commit one after the other; payments are none of them.)
CREATE FUNCTION tell() RETURNS void LANGUAGE sql AS $$ SELECT pg_notify('owners', '') $$;

-- Who serves the store's leases, for the others.
CREATE FUNCTION put_owners(_store text, _owners bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF _owners IS NOT NULL THEN
        UPDATE store SET owners = _owners WHERE name = _store;
        PERFORM tell();
    END IF;
END $$;

-- A group, all or nothing. Channels: with phase 0 before, it opens them. Keys: records that it puts; gone: that it removes. Leases: new
-- epochs of our own. Owners: NULL if they have not changed.
CREATE FUNCTION put_group(_store text, _fence bigint, _groups bigint, _open bigint, _begun bigint, _spent bigint,
    _outpoints bytea[], _phases_before smallint[], _values_before bigint[], _revisions_before bigint[],
    _phases smallint[], _values bigint[], _revisions bigint[], _records bytea[],
    _keys bytea[], _puts bytea[], _gone bytea[], _leases int[], _epochs bigint[], _owners bytea)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
DECLARE written bigint; more bigint;
BEGIN
    PERFORM pass(_store, _fence, _groups, _open, _begun, _spent);
    UPDATE state c SET phase = v.phase, value = v.value, revision = v.revision, record = v.record
        FROM unnest(_outpoints, _phases_before, _values_before, _revisions_before, _phases, _values, _revisions, _records)
            v(outpoint, phase_before, value_before, revision_before, phase, value, revision, record)
        WHERE c.outpoint = v.outpoint AND c.phase = v.phase_before AND c.value = v.value_before AND c.revision = v.revision_before
            AND v.phase >= v.phase_before AND v.value <= v.value_before AND v.revision >= v.revision_before;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF 0 = ANY (_phases_before) THEN
        INSERT INTO state (outpoint, phase, value, revision, record)
            SELECT v.outpoint, v.phase, v.value, v.revision, v.record
            FROM unnest(_outpoints, _phases_before, _phases, _values, _revisions, _records)
                v(outpoint, phase_before, phase, value, revision, record)
            WHERE v.phase_before = 0 ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS more = ROW_COUNT;
        written := written + more;
    END IF;
    IF written <> cardinality(_outpoints) THEN
        RAISE EXCEPTION '% of % states are as expected', written, cardinality(_outpoints) USING ERRCODE = 'PC002';
    END IF;
    IF cardinality(_keys) > 0 THEN
        INSERT INTO record (key, value) SELECT v.key, v.value FROM unnest(_keys, _puts) v(key, value)
            ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE record.value <> excluded.value;  -- many channels, one funding
    END IF;
    IF cardinality(_gone) > 0 THEN
        DELETE FROM record WHERE key = ANY (_gone);
    END IF;
    IF cardinality(_leases) > 0 THEN
        UPDATE shard s SET epoch = v.epoch FROM unnest(_leases, _epochs) v(shard, epoch)
            WHERE s.shard = v.shard AND s.store = _store AND s.epoch < v.epoch;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> cardinality(_leases) THEN
            RAISE EXCEPTION '% of % leases are ours, with an older epoch', written, cardinality(_leases) USING ERRCODE = 'PC002';
        END IF;
    END IF;
    PERFORM put_owners(_store, _owners);
END $$;

-- A store begins: whatever an earlier process of this name left in flight is over when this returns. Its own leases, and those that are
-- nobody's, are its own. A name that another machine used is taken over only if its row is as it was seen (it was watched for a lease).
-- Confirmed: the number in its mark; a store that finds fewer groups refuses, and by this the others do, too.
CREATE FUNCTION begin_store(_name text, _instance bytea, _identity bytea, _leases int, _seen_fence bigint, _seen_groups bigint,
    _confirmed bigint, OUT fence bigint, OUT groups bigint, OUT number int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM replicated();
    UPDATE cluster SET identity = _identity WHERE identity IS NULL OR identity = _identity;  -- one begins after the other
    IF NOT FOUND THEN RAISE EXCEPTION 'the database belongs to another store' USING ERRCODE = 'PC001'; END IF;
    INSERT INTO store (name, number, instance, fence, groups, confirmed)
        VALUES (_name, (SELECT coalesce(max(number), 0) + 1 FROM store), _instance, 1, 0, _confirmed)
        ON CONFLICT (name) DO UPDATE SET fence = store.fence + 1, instance = _instance, owners = '', confirmed = _confirmed
            WHERE store.instance = _instance OR (store.fence = _seen_fence AND store.groups = _seen_groups)
        RETURNING store.fence, store.groups, store.number INTO fence, groups, number;
    IF NOT FOUND THEN RAISE EXCEPTION 'another store uses the name %', _name USING ERRCODE = 'PC001'; END IF;
    INSERT INTO shard (shard) SELECT generate_series(0, _leases - 1) ON CONFLICT DO NOTHING;
    UPDATE shard SET store = _name, epoch = epoch + 1 WHERE store IN (_name, '');
    PERFORM tell();
END $$;

-- Take a silent store's leases. It was seen at (fence, groups) for a whole lease: if it moved since, nothing happens, and 0 is returned.
CREATE FUNCTION take_over(_name text, _fence bigint, _groups bigint, _from text, _from_fence bigint, _from_groups bigint, OUT taken bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM replicated();
    PERFORM FROM store WHERE name IN (_name, _from) ORDER BY name FOR UPDATE;  -- two that take each other's: in one order
    taken := 0;
    UPDATE store SET fence = fence + 1, owners = '' WHERE name = _from AND fence = _from_fence AND groups = _from_groups;
    IF NOT FOUND THEN RETURN; END IF;
    UPDATE store SET groups = _groups WHERE name = _name AND fence = _fence AND groups = _groups - 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'store % is not at fence %, group %', _name, _fence, _groups - 1 USING ERRCODE = 'PC001';
    END IF;
    UPDATE shard SET store = _name, epoch = epoch + 1 WHERE store = _from;
    GET DIAGNOSTICS taken = ROW_COUNT;
    PERFORM tell();
END $$;

-- Give leases to another store: the giver's own group, so nothing of it can be in flight.
CREATE FUNCTION give(_store text, _fence bigint, _groups bigint, _open bigint, _begun bigint, _spent bigint,
    _leases int[], _to text, _owners bytea)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
DECLARE given bigint;
BEGIN
    PERFORM pass(_store, _fence, _groups, _open, _begun, _spent);
    UPDATE shard SET store = _to, epoch = epoch + 1 WHERE shard = ANY (_leases) AND store = _store;
    GET DIAGNOSTICS given = ROW_COUNT;
    IF given <> cardinality(_leases) OR NOT EXISTS (SELECT FROM store WHERE name = _to) THEN
        RAISE EXCEPTION '% of % leases are ours, to be given to %', given, cardinality(_leases), _to USING ERRCODE = 'PC002';
    END IF;
    PERFORM put_owners(_store, _owners);
    PERFORM tell();
END $$;

-- After a restore of an older state of the database: no epoch and no fence that was given out since may be given out again. For the
-- owner of the schema, while no store runs.
CREATE FUNCTION restored() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE shard SET epoch = epoch + 4294967296;
    UPDATE store SET fence = fence + 4294967296, confirmed = 0;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA paychan FROM PUBLIC;
GRANT USAGE ON SCHEMA paychan TO @ROLE@;
GRANT SELECT ON ALL TABLES IN SCHEMA paychan TO @ROLE@;
GRANT EXECUTE ON FUNCTION put_group, begin_store, take_over, give TO @ROLE@;
