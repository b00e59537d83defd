-- Events and notes: records like any other (store/keys.py), and who numbers them. Run after cluster.sql; on a schema of version 3 alone, by
-- `paychan-store postgres init`.
--
-- The order of the numbers is the order of the commits. Whoever writes an event holds one lock from before it takes the newest number until
-- its transaction has ended, and PostgreSQL gives locks back after the transaction has become visible. So the next number is taken by who
-- sees the one before; nobody can read an event and find one with a lower number later; and a transaction that fails leaves no gap. Stores
-- wait for each other by it, for a commit at a time, where they write events; groups that have none take no lock.

SET LOCAL search_path = paychan, pg_temp;

CREATE FUNCTION put_events(_bodies bytea[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE newest bytea; number bigint := 0;
BEGIN
    IF cardinality(_bodies) = 0 THEN RETURN; END IF;
    PERFORM pg_advisory_xact_lock(hashtext('paychan.events'));
    SELECT key INTO newest FROM record WHERE key >= '\x4c' AND key < '\x4d' ORDER BY key DESC LIMIT 1;  -- sees what committed until now
    IF FOUND THEN number := ('x' || encode(substr(newest, 2), 'hex'))::bit(64)::bigint; END IF;
    INSERT INTO record (key, value) SELECT '\x4c'::bytea || int8send(number + v.place), v.body
        FROM unnest(_bodies) WITH ORDINALITY v(body, place);
END $$;

-- A group with what it tells: in one transaction.
CREATE FUNCTION put_told_group(_store text, _fence bigint, _groups bigint, _open bigint, _begun bigint, _spent bigint,
    _outpoints bytea[], _phases_before smallint[], _values_before bigint[], _revisions_before bigint[],
    _phases smallint[], _values bigint[], _revisions bigint[], _records bytea[],
    _keys bytea[], _puts bytea[], _gone bytea[], _leases int[], _epochs bigint[], _owners bytea, _events bytea[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    PERFORM put_group(_store, _fence, _groups, _open, _begun, _spent, _outpoints, _phases_before, _values_before, _revisions_before,
        _phases, _values, _revisions, _records, _keys, _puts, _gone, _leases, _epochs, _owners);
    PERFORM put_events(_events);
END $$;

-- Replace a note if it is as expected (NULL: there is none; NULL as its value removes it), with events. One after the other.
CREATE FUNCTION put_note(_key bytea, _expected bytea, _value bytea, _events bytea[], OUT done boolean, OUT said bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    PERFORM replicated();
    IF substr(_key, 1, 1) <> '\x4e' THEN
        RAISE EXCEPTION 'this is no note' USING ERRCODE = 'PC002';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('paychan.events'));
    SELECT value INTO said FROM record WHERE key = _key;
    done := said IS NOT DISTINCT FROM _expected;
    IF NOT done THEN RETURN; END IF;
    said := _value;
    IF _value IS NULL THEN
        DELETE FROM record WHERE key = _key;
    ELSE
        INSERT INTO record (key, value) VALUES (_key, _value) ON CONFLICT (key) DO UPDATE SET value = excluded.value;
    END IF;
    PERFORM put_events(_events);
END $$;

CREATE FUNCTION tell_events(_events bytea[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    PERFORM replicated();
    PERFORM put_events(_events);
END $$;

-- Remove the events up to a number, but for the newest, from which the next number follows.
CREATE FUNCTION drop_events(_up_to bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    PERFORM replicated();
    DELETE FROM record WHERE key >= '\x4c' AND key <= '\x4c'::bytea || int8send(_up_to)
        AND key < (SELECT key FROM record WHERE key >= '\x4c' AND key < '\x4d' ORDER BY key DESC LIMIT 1);
END $$;

-- As it was, and no event's number that was given out since is given out again.
CREATE OR REPLACE FUNCTION restored() RETURNS void LANGUAGE plpgsql SET search_path = paychan, pg_temp AS $$
DECLARE newest bytea; number bigint := 0;
BEGIN
    UPDATE shard SET epoch = epoch + 4294967296;
    UPDATE store SET fence = fence + 4294967296, confirmed = 0;
    SELECT key INTO newest FROM record WHERE key >= '\x4c' AND key < '\x4d' ORDER BY key DESC LIMIT 1;
    IF FOUND THEN number := ('x' || encode(substr(newest, 2), 'hex'))::bit(64)::bigint; END IF;
    INSERT INTO record (key, value) VALUES ('\x4c'::bytea || int8send(number + 4294967296), convert_to(
        '{"at":' || extract(epoch FROM clock_timestamp())::bigint || ',"type":"store.restored","data":{}}', 'UTF8'));
END $$;

-- Stores of the version before write no events: none of them may write any more.
UPDATE store SET fence = fence + 1;
UPDATE cluster SET version = @VERSION@;

REVOKE ALL ON FUNCTION put_events, put_told_group, put_note, tell_events, drop_events, restored FROM PUBLIC;
GRANT EXECUTE ON FUNCTION put_told_group, put_note, tell_events, drop_events TO @ROLE@;
