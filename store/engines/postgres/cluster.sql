-- What all machines share besides the store's records and the signers' ledger. Run after schema.sql, as signer.sql is.

SET LOCAL search_path = paychan, pg_temp;

ALTER TABLE cluster ADD COLUMN highest bigint NOT NULL DEFAULT 0;  -- the highest time that a machine was sure of, unix seconds

-- Raise the highest time, and return it. A machine whose clock is far ahead is not believed: two clocks must agree.
CREATE FUNCTION raise_highest(_seconds bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = paychan, pg_temp AS $$
BEGIN
    UPDATE cluster SET highest = _seconds WHERE highest < _seconds AND _seconds <= extract(epoch FROM clock_timestamp()) + 600;
    RETURN (SELECT highest FROM cluster);
END $$;

REVOKE ALL ON FUNCTION raise_highest FROM PUBLIC;
GRANT EXECUTE ON FUNCTION raise_highest TO @ROLE@;

-- A store that was moved away, or is arriving (store/moved.py): none starts here. For the owner of the schema.
ALTER TABLE cluster ADD COLUMN moved text;

-- On return no store starts here, and none that runs writes any more. The identity becomes one that begin_store refuses.
CREATE FUNCTION set_moved(_moved text) RETURNS void LANGUAGE plpgsql SET search_path = paychan, pg_temp AS $$
BEGIN
    PERFORM replicated();
    UPDATE cluster SET moved = _moved, identity = CASE WHEN moved IS NULL THEN '\xff' || coalesce(identity, '') ELSE identity END;
    UPDATE store SET fence = fence + 1;
END $$;

CREATE FUNCTION unset_moved() RETURNS void LANGUAGE plpgsql SET search_path = paychan, pg_temp AS $$
BEGIN
    PERFORM replicated();
    UPDATE cluster SET moved = NULL, identity = nullif(substr(identity, 2), '') WHERE moved IS NOT NULL;
END $$;

-- Make room for a store that arrives. Stores' fences and numbers stay: they never go back. The epochs that arrive are higher than all
-- that were given out here before: what is here was moved away, and each move raises them.
CREATE FUNCTION clear_moved() RETURNS void LANGUAGE plpgsql SET search_path = paychan, pg_temp AS $$
BEGIN
    PERFORM replicated();
    UPDATE cluster SET moved = NULL, identity = NULL WHERE moved LIKE 'from %';
    IF NOT FOUND THEN RAISE EXCEPTION 'no store is arriving here' USING ERRCODE = 'PC002'; END IF;
    DELETE FROM state;
    DELETE FROM record;
    UPDATE store SET open_value = 0, begun_value = 0, open_spent = 0;
    UPDATE shard SET store = '', epoch = 0;
END $$;

REVOKE ALL ON FUNCTION set_moved, unset_moved, clear_moved FROM PUBLIC;
