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
